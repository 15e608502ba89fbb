"""The arrays of one request, as a server received them, to a checked prompt, its sampling and its wishes.

Everything that can be wrong with a request is found here, before anything is allocated for it, and names the tensor,
its value and the allowed one. Triton checks types and most ranks only: a rank of 0, an empty tensor, a missing tensor
and an unknown JSON field all arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.expansion import expand_pads
from contract.limits import Limits
from contract.prompt import Prompt, check_items, check_prompt, num_rows
from contract.sampling import Sampling
from contract.tensors import INPUTS

Tensors = Mapping[str, NDArray[Any]]
SAMPLING_NAMES = frozenset(field.name for field in fields(Sampling))
_RANKS = {spec.name: len(spec.shape) for spec in INPUTS}
_ONE_VALUE = frozenset(spec.name for spec in INPUTS if spec.shape == (1,))


@dataclass(frozen=True)
class Request:
    """A request that passed every check. echo is the text that goes before the answer, empty unless asked for."""

    prompt: Prompt
    sampling: Sampling
    echo: str
    is_stream: bool
    wants_finish_reason: bool
    wants_num_input_tokens: bool
    wants_num_output_tokens: bool


def flag(tensors: Tensors, name: str, default: bool) -> bool:
    """A BOOL [1] tensor.

    Raises:
        InvalidInput: it has another shape.
    """
    if name not in tensors:
        return default
    _check_shape(name, tensors[name])
    return bool(tensors[name][0])


def text(tensors: Tensors, name: str) -> str | None:
    """A BYTES [1] tensor as text, None when absent.

    Raises:
        InvalidInput: it has another shape or is no UTF-8.
    """
    if name not in tensors:
        return None
    _check_shape(name, tensors[name])
    value = tensors[name][0]
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is no UTF-8: {error.reason} at byte {error.start}") from error


class RequestParser:
    """Knows the model that requests are checked against. Holds no state of a request."""

    def __init__(self, card: ModelCard, limits: Limits, tokenizer: Tokenizer) -> None:
        self._card, self._limits, self._tokenizer = card, limits, tokenizer

    def parse(self, tensors: Tensors, parameters: Mapping[str, Any]) -> Request:
        """Check one request.

        Args:
            tensors: by the names of contract.tensors.INPUTS; BYTES as object arrays of bytes. Absent ones are absent.
            parameters: the request parameters; sampling names are allowed here as well (plain JSON fields).

        Raises:
            InvalidInput: naming the tensor or parameter, its value and the allowed one.
        """
        for name, values in tensors.items():
            _check_shape(name, values)
        sampling = self._sampling(text(tensors, "sampling_parameters"), parameters)
        grids = (tensors.get("image_grid_thw"), tensors.get("video_grid_thw"))
        images, videos = check_items(*grids, self._card, self._limits)
        prompt_text = text(tensors, "text_input")
        prompt = check_prompt(
            self._card,
            self._limits,
            input_ids=self._ids(tensors.get("input_ids"), prompt_text, images, videos),
            vision_embeddings=_twin(tensors, "vision_embeddings"),
            deepstack_embeddings=_twin(tensors, "deepstack_embeddings"),
            image_grid_thw=images,
            video_grid_thw=videos,
            encoder_fingerprint=text(tensors, "encoder_fingerprint"),
            attention_mask=tensors.get("attention_mask"),
            vision_token_positions=tensors.get("vision_token_positions"),
        )
        echo = ""
        if not flag(tensors, "exclude_input_in_output", True):
            ids = prompt.input_ids.tolist()
            echo = prompt_text or self._tokenizer.decode(ids, skip_special_tokens=False)
        return Request(
            prompt,
            sampling,
            echo,
            is_stream=flag(tensors, "stream", True),
            wants_finish_reason=flag(tensors, "return_finish_reason", False),
            wants_num_input_tokens=flag(tensors, "return_num_input_tokens", False),
            wants_num_output_tokens=flag(tensors, "return_num_output_tokens", False),
        )

    def _sampling(self, json_text: str | None, parameters: Mapping[str, Any]) -> Sampling:
        if unknown := sorted(parameters.keys() - SAMPLING_NAMES):
            raise InvalidInput(
                f"{unknown[0]!r} is neither an input nor a parameter; inputs are {', '.join(_RANKS)}; "
                f"parameters are {', '.join(sorted(SAMPLING_NAMES))}"
            )
        sampling = Sampling.from_dict(dict(parameters), None if json_text is None else Sampling.from_json(json_text))
        if sampling.max_tokens > self._limits.max_output_tokens:
            raise InvalidInput(
                f"sampling_parameters.max_tokens is {sampling.max_tokens}, up to {self._limits.max_output_tokens} "
                "is allowed"
            )
        return sampling

    def _ids(
        self,
        input_ids: NDArray[np.int64] | None,
        prompt_text: str | None,
        images: NDArray[np.int64],
        videos: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The prompt's tokens (S,), one pad per embedding row."""
        if (input_ids is None) == (prompt_text is None):
            given = "neither" if input_ids is None else "both"
            raise InvalidInput(f"{given} of input_ids and text_input given: send exactly one of them")
        if input_ids is not None:
            return input_ids
        assert prompt_text is not None  # for mypy: just checked
        # a character is at least a byte and a token at most the longest vocabulary entry: refuse what cannot fit unread
        if len(prompt_text) > 64 * self._limits.max_prompt_tokens:
            raise InvalidInput(
                f"text_input has {len(prompt_text)} characters, {self._limits.max_prompt_tokens} tokens are allowed"
            )
        rows = num_rows(images, self._card) + num_rows(videos, self._card)
        if rows > self._limits.max_prompt_tokens:
            raise InvalidInput(f"the grids ask for {rows} rows, {self._limits.max_prompt_tokens} tokens are allowed")
        ids = np.array(self._tokenizer.encode(prompt_text, add_special_tokens=False).ids, np.int64)
        return expand_pads(ids, images, videos, self._card)


def _check_shape(name: str, values: NDArray[Any]) -> None:
    rank = _RANKS[name]
    if values.ndim != rank:
        raise InvalidInput(f"{name} has shape {list(values.shape)}, {rank} dimensions are expected")
    if not values.size:
        raise InvalidInput(f"{name} is empty, shape {list(values.shape)}: leave it out")
    if name in _ONE_VALUE and values.size != 1:
        raise InvalidInput(f"{name} has shape {list(values.shape)}, [1] is expected")


def _twin(tensors: Tensors, name: str) -> NDArray[np.floating[Any]] | None:
    """An embedding tensor from its FP16 or its FP32 input."""
    half, full = tensors.get(name), tensors.get(f"{name}_fp32")
    if half is not None and full is not None:
        raise InvalidInput(f"{name} and {name}_fp32 are both given: send one of them")
    return half if full is None else full
