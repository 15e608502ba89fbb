"""A checked prompt as vLLM's engine takes it past its own processor: rows packed, places, and names by content.

vLLM trusts what comes through this door. A wrong width or count ends the engine with every request in it, one value
that is not finite spoils cache blocks of other requests, and two pictures of one name are one picture. The contract
checks the first (contract.prompt), this module checks the number format, and this server makes the names by its own
hash.
"""

from typing import Any

import numpy as np
import torch
from vllm.inputs import mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalFlatField,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.families import find
from contract.items import ItemRows, is_pad
from contract.prompt import Prompt
from serving.engine import check_kept
from serving.vllm.families.positions import FIELD

FLAT = MultiModalFlatField(slices=[slice(None)])  # the items of one batch lie one behind the other
EACH = MultiModalBatchedField()  # the items of one batch are a list of tensors
GRIDS = MultiModalBatchedField(keep_on_cpu=True)


def engine_input(prompt: Prompt, card: ModelCard, dtype: torch.dtype) -> Any:
    """vLLM's EngineInput of a prompt.

    Raises:
        InvalidInput: the embeddings are too large for dtype, the model's number format, or rows are dropped and vLLM
            computes the positions of this family itself.
    """
    ids = prompt.input_ids.tolist()
    if not prompt.items:
        return tokens_input(ids)
    positions = _positions(prompt, card)
    rows = _packed(prompt, dtype)  # (N, (1+L)*H)
    pads = np.flatnonzero(is_pad(prompt.input_ids, card))  # (N,)
    items: dict[str, list[Any]] = {}
    keys: dict[str, list[str]] = {}
    places: dict[str, list[Any]] = {}
    fields = _on_grids if find(card.family).LAYOUT == "grids" else _rows_alone
    for item, content, key in zip(prompt.items, prompt.contents, prompt.keys, strict=True):
        kind, values = fields(item, rows[item.rows])
        if content.seconds is not None:
            values["second_per_grid_ts"] = MultiModalFieldElem(torch.tensor(content.seconds), GRIDS)
        if positions is not None:
            values[FIELD] = MultiModalFieldElem(positions, GRIDS)
            if content.masks is not None and not content.masks.kept.all():
                values[f"{kind}_grid_thw"] = MultiModalFieldElem(_row_grid(item, card), GRIDS)
        items.setdefault(kind, []).append(MultiModalKwargsItem(values))
        keys.setdefault(kind, []).append(key)
        places.setdefault(kind, []).append(_place(pads[item.rows]))
    return mm_input(ids, MultiModalKwargsItems(items), keys, places)


def _on_grids(item: ItemRows, rows: torch.Tensor) -> tuple[str, dict[str, Any]]:
    """An item's kind and fields, where its rows stand on a grid."""
    kind = "video" if item.is_video else "image"
    grid = MultiModalFieldElem(torch.tensor(item.grid_thw), GRIDS)
    return kind, {f"{kind}_embeds": MultiModalFieldElem(rows, FLAT), f"{kind}_grid_thw": grid}


def _rows_alone(item: ItemRows, rows: torch.Tensor) -> tuple[str, dict[str, Any]]:
    """An item's kind and field, where rows are all there is: vLLM has no such field for videos, and needs none."""
    return "image", {"image_embeds": MultiModalFieldElem(rows, EACH)}


def _positions(prompt: Prompt, card: ModelCard) -> torch.Tensor | None:
    """Positions int64 (3, S + 1) of the tokens and of the next one; None where no row is dropped, so that vLLM finds
    them itself."""
    if prompt.layout is None or prompt.layout.is_kept.all():
        return None
    check_kept(prompt, card)
    positions, delta = prompt.positions(card)
    following = np.full((len(positions), 1), prompt.input_ids.size + delta, np.int64)
    return torch.from_numpy(np.concatenate([positions, following], axis=1))


def _row_grid(item: ItemRows, card: ModelCard) -> torch.Tensor:
    """A grid of as many rows as an item keeps: vLLM cuts the rows of a batch apart by their grids."""
    return torch.tensor((1, card.merge_size, card.merge_size * (item.rows.stop - item.rows.start)))


def _packed(prompt: Prompt, dtype: torch.dtype) -> torch.Tensor:
    """Rows (N, (1+L)*H): main and levels side by side, main first, written once."""
    main, levels = torch.from_numpy(prompt.main), torch.from_numpy(prompt.deepstack)  # (N, H), (L, N, H)
    if torch.finfo(main.dtype).max >= torch.finfo(dtype).max:
        _check_sum([main, *levels], dtype)
    packed = torch.empty(len(main), 1 + len(levels), main.shape[1], dtype=dtype)
    packed[:, 0] = main
    packed[:, 1:] = levels.transpose(0, 1)
    return packed.flatten(1)


def _check_sum(levels: list[torch.Tensor], dtype: torch.dtype) -> None:
    """The model adds the levels up, so refuse values whose sum could leave dtype and become NaN in the cache."""
    largest = sum(max(-low.item(), high.item()) for low, high in map(torch.aminmax, levels))
    allowed = torch.finfo(dtype).max / 2  # the rest is for what the layers add
    if largest > allowed:
        raise InvalidInput(
            f"vision_embeddings and deepstack_embeddings add up to {largest:.3g}, too large for {dtype}, in which this "
            f"server runs: up to {allowed:.3g} is allowed",
            check="number-format",
        )


def _place(pads: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Where an item's rows (n,) stand. Between the frames of a video there is text, which keeps its own embedding."""
    first, length = int(pads[0]), int(pads[-1] - pads[0]) + 1
    if length == len(pads):
        return PlaceholderRange(offset=first, length=length)
    is_row = torch.zeros(length, dtype=torch.bool)
    is_row[torch.from_numpy(pads - first)] = True
    return PlaceholderRange(offset=first, length=length, is_embed=is_row)
