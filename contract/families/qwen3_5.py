"""Qwen3.5 and 3.6: Qwen3-VL's rows and positions; deepstack levels only where the config names them."""

from collections.abc import Mapping
from typing import Any

from contract.card import ModelCard
from contract.families import missing_key
from contract.families.qwen3_vl import LAYOUT, POSITIONS, card_with_levels, deepstack_indexes, positions, runs
from contract.tiles import Tiles

__all__ = ["LAYOUT", "POSITIONS", "card", "deepstack_blocks", "positions", "runs"]


def deepstack_blocks(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The tower's blocks whose output becomes a deepstack level; none in the released models."""
    return deepstack_indexes(config["vision_config"].get("deepstack_visual_indexes") or ())


def card(config: Mapping[str, Any], encoder_fingerprint: str, tiles: Tiles | None = None) -> ModelCard:
    """The card of a config.json; see contract.families.Family."""
    try:
        return card_with_levels(config, encoder_fingerprint, len(deepstack_blocks(config)))
    except KeyError as error:
        raise missing_key(error) from error
