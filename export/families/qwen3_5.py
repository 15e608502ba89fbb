"""Qwen3.5's and 3.6's vision tower: Qwen3-VL's, with deepstack levels only where the config names them."""

from collections.abc import Mapping
from typing import Any

from contract.families import missing_key
from contract.families.qwen3_5 import deepstack_blocks
from export.families.qwen3_vl import (
    FRAMES_ROUNDED,
    SHARED,
    VIDEO,
    body,
    config,
    facts_of,
    for_bytes,
    local_name,
    static,
    tower_with_taps,
    vision_model,
)
from export.graph.tower import Tower

__all__ = [
    "FRAMES_ROUNDED",
    "SHARED",
    "VIDEO",
    "body",
    "config",
    "facts_of",
    "for_bytes",
    "local_name",
    "oracle",
    "static",
    "tower",
]

CLASSES = {"qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe"}  # model_type: how transformers' class names begin


def tower(config: Mapping[str, Any]) -> Tower:
    """Read vision_config; see export.families.Family."""
    try:
        return tower_with_taps(config, deepstack_blocks(config))
    except KeyError as error:
        raise missing_key(error) from error


def oracle(config: Mapping[str, Any]) -> Any:
    """transformers' tower on the meta device; see export.families.Family."""
    return vision_model(config, CLASSES[config["model_type"]])
