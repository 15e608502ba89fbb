"""A checked prompt as vLLM's engine takes it past its own processor: rows packed, places, and names by content.

vLLM trusts what comes through this door. A wrong width or count ends the engine with every request in it, one value
that is not finite spoils cache blocks of other requests, and two pictures of one name are one picture. The contract
checks the first (contract.prompt); the number format is checked here, and the names are hashes made on this machine.
"""

from typing import Any

import numpy as np
import torch
from vllm.inputs import mm_input, tokens_input
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.items import is_pad
from contract.prompt import Prompt


def engine_input(prompt: Prompt, card: ModelCard, dtype: torch.dtype) -> Any:
    """vLLM's EngineInput of a prompt.

    Raises:
        InvalidInput: the embeddings are too large for dtype, the model's number format.
    """
    ids = prompt.input_ids.tolist()
    if not prompt.items:
        return tokens_input(ids)
    rows = _packed(prompt, dtype)  # (N, (1+L)*H)
    pads = np.flatnonzero(is_pad(prompt.input_ids, card))  # (N,)
    data: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    keys: dict[str, list[str]] = {}
    places: dict[str, list[Any]] = {}
    for kind in ("image", "video"):
        chosen = [item for item in prompt.items if item.is_video == (kind == "video")]
        if not chosen:
            continue
        is_all = len(chosen) == len(prompt.items)
        data[f"{kind}_embeds"] = rows if is_all else torch.cat([rows[item.rows] for item in chosen])  # (n, (1+L)*H)
        data[f"{kind}_grid_thw"] = torch.tensor([item.grid_thw for item in chosen])  # (k, 3)
        sizes = torch.tensor([item.rows.stop - item.rows.start for item in chosen])
        fields[f"{kind}_embeds"] = MultiModalFieldConfig.flat_from_sizes(kind, sizes)
        fields[f"{kind}_grid_thw"] = MultiModalFieldConfig.batched(kind, keep_on_cpu=True)
        keys[kind] = [key for item, key in zip(prompt.items, prompt.keys, strict=True) if item in chosen]
        places[kind] = [_place(pads[item.rows]) for item in chosen]
    return mm_input(ids, MultiModalKwargsItems.from_hf_inputs(data, fields), keys, places)


def _packed(prompt: Prompt, dtype: torch.dtype) -> torch.Tensor:
    """Main and levels side by side, main first, written once."""
    levels = [torch.from_numpy(level) for level in (prompt.main, *prompt.deepstack)]  # (1+L) of (N, H)
    if torch.finfo(levels[0].dtype).max >= torch.finfo(dtype).max:
        _check_sum(levels, dtype)
    packed = torch.empty(len(prompt.main), len(levels), prompt.main.shape[1], dtype=dtype)
    for i, level in enumerate(levels):
        packed[:, i].copy_(level)
    return packed.flatten(1)


def _check_sum(levels: list[torch.Tensor], dtype: torch.dtype) -> None:
    """The model adds the levels up, and a sum that is not finite becomes NaN in the cache."""
    largest = sum(max(-low.item(), high.item()) for low, high in map(torch.aminmax, levels))
    allowed = torch.finfo(dtype).max / 2  # the rest is for what the layers add
    if largest > allowed:
        raise InvalidInput(
            f"vision_embeddings and deepstack_embeddings add up to {largest:.3g}, too large for {dtype}, in which this "
            f"server runs: up to {allowed:.3g} is allowed"
        )


def _place(pads: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Where an item's rows (n,) stand. Between the frames of a video there is text, which keeps its own embedding."""
    first, length = int(pads[0]), int(pads[-1] - pads[0]) + 1
    is_row = torch.zeros(length, dtype=torch.bool)
    is_row[torch.from_numpy(pads - first)] = True
    return PlaceholderRange(offset=first, length=length, is_embed=None if length == len(pads) else is_row)
