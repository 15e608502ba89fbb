"""Qwen2-VL: rows on a grid of merge blocks, a video in one run of pads, positions on three axes.

Qwen2.5-VL differs in time alone: its positions count seconds, those of Qwen2-VL count temporal patches.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.families import missing_key
from contract.families.mrope import mrope_positions
from contract.families.qwen3_vl import LAYOUT, POSITIONS, card_with_levels
from contract.tiles import Tiles

if TYPE_CHECKING:
    from contract.prompt import Prompt

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]


def card(config: Mapping[str, Any], encoder_fingerprint: str, tiles: Tiles | None = None) -> ModelCard:
    """The card of a resolved config, whose keys transformers' classes have sorted; see contract.families.Family."""
    try:
        vision = dict(config["vision_config"])
        vision.setdefault("out_hidden_size", vision["hidden_size"])  # Qwen2-VL calls the rows' width hidden_size
        made = card_with_levels({**config, "vision_config": vision}, encoder_fingerprint, 0)
        return replace(made, tokens_per_second=vision.get("tokens_per_second"))
    except KeyError as error:
        raise missing_key(error) from error


def runs(grid_thw: tuple[int, int, int], card: ModelCard) -> tuple[int, int]:
    """One run an item, one pad for merge_size x merge_size patches; see contract.families.Family."""
    frames, height, width = grid_thw
    return 1, frames * height * width // card.merge_size**2


def positions(prompt: "Prompt", card: ModelCard) -> tuple[NDArray[np.int64], int]:
    """Temporal, height and width positions (3, S); see contract.families.Family and mrope_positions."""
    image, video = card.pad_token_ids
    grids = prompt.image_grid_thw, prompt.video_grid_thw
    steps = [1.0] * len(prompt.video_grid_thw)
    if card.tokens_per_second is not None:
        steps = [card.tokens_per_second * (1.0 if second is None else second) for second in prompt.seconds]
    return mrope_positions(prompt.input_ids, *grids, image, video, card.merge_size, steps)
