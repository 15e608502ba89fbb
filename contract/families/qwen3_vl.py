"""Qwen3-VL and its mixtures of experts: rows on a grid of merge blocks, deepstack levels, positions on three axes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import BundleError
from contract.families import missing_key
from contract.families.mrope import mrope_positions
from contract.tiles import Tiles
from contract.typed import Count, check

if TYPE_CHECKING:
    from contract.prompt import Prompt

LAYOUT, POSITIONS = "grids", "mrope"


def deepstack_blocks(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The tower's blocks whose output becomes a deepstack level.

    Raises:
        KeyError: the config does not name them.
    """
    return deepstack_indexes(config["vision_config"]["deepstack_visual_indexes"])


def deepstack_indexes(value: Any) -> tuple[int, ...]:
    """The numbers of the blocks that a config names, from 0 on.

    Raises:
        BundleError: it is no list of numbers.
    """
    found: tuple[int, ...] = check(tuple[Count, ...], value, "config.json: vision_config: deepstack_visual_indexes")
    return found


def card(config: Mapping[str, Any], encoder_fingerprint: str, tiles: Tiles | None = None) -> ModelCard:
    """The card of a config.json; see contract.families.Family."""
    try:
        return card_with_levels(config, encoder_fingerprint, len(deepstack_blocks(config)))
    except KeyError as error:
        raise missing_key(error) from error


def card_with_levels(config: Mapping[str, Any], encoder_fingerprint: str, num_deepstack_levels: int) -> ModelCard:
    """The card of a config.json with this number of levels.

    Raises:
        BundleError: tower and language model differ in width.
        KeyError: a key is missing.
    """
    text, vision = config["text_config"], config["vision_config"]
    if vision["out_hidden_size"] != text["hidden_size"]:
        raise BundleError(
            f"vision_config.out_hidden_size is {vision['out_hidden_size']}, "
            f"text_config.hidden_size is {text['hidden_size']}: they must be equal"
        )
    return ModelCard(
        family=config["model_type"],
        hidden_size=text["hidden_size"],
        num_deepstack_levels=num_deepstack_levels,
        vocab_size=text["vocab_size"],
        max_position_embeddings=text["max_position_embeddings"],
        image_token_id=config["image_token_id"],
        video_token_id=config["video_token_id"],
        vision_start_token_id=config["vision_start_token_id"],
        vision_end_token_id=config["vision_end_token_id"],
        patch_size=vision["patch_size"],
        merge_size=vision["spatial_merge_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        encoder_fingerprint=encoder_fingerprint,
    )


def runs(grid_thw: tuple[int, int, int], card: ModelCard) -> tuple[int, int]:
    """One run a frame, one pad for merge_size x merge_size patches; see contract.families.Family."""
    frames, height, width = grid_thw
    return frames, height * width // card.merge_size**2


def positions(prompt: "Prompt", card: ModelCard) -> tuple[NDArray[np.int64], int]:
    """Temporal, height and width positions (3, S); see contract.families.Family and mrope_positions."""
    image, video = card.pad_token_ids
    grids = prompt.image_grid_thw, prompt.video_grid_thw
    return mrope_positions(prompt.input_ids, *grids, image, video, card.merge_size)
