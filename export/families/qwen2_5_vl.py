"""Qwen2.5-VL's vision tower: any grid, rotary angles alone, windows in most blocks, RMSNorm and SwiGLU."""

from collections.abc import Mapping
from typing import Any

from contract.errors import BundleError
from contract.families import missing_key
from export.families.qwen2_vl import (
    FRAMES_ROUNDED,
    SHARED,
    VIDEO,
    config,
    facts_of,
    local,
    patch_names,
    renamed_tower,
    require,
    whole,
)
from export.families.qwen3_vl import body, for_bytes, static
from export.graph.tower import Tower, linear_shapes

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

RENAMED = {"gate_proj": "linear_gate", "up_proj": "linear_fc1", "down_proj": "linear_fc2"}


def local_name(name: str) -> str | None:
    """`visual.blocks.0.mlp.up_proj.bias` is `blocks.0.mlp.linear_fc1.bias`; see export.families.Family."""
    return local(name, RENAMED)


def tower(config: Mapping[str, Any]) -> Tower:
    """Read vision_config; see export.families.Family."""
    try:
        vision = config["vision_config"]
        patch, merge = vision["patch_size"], vision["spatial_merge_size"]
        require(vision, hidden_act="silu", in_channels=3, temporal_patch_size=2)
        blocks = tuple(sorted(set(vision["fullatt_block_indexes"])))
        if not all(0 <= block < vision["depth"] for block in blocks):
            raise BundleError(
                f"vision_config.fullatt_block_indexes is {list(blocks)}, blocks from 0 to {vision['depth'] - 1} are allowed"
            )
        window = vision["window_size"] // merge // patch * merge
        if window < merge:
            raise BundleError(
                f"vision_config.window_size is {vision['window_size']}, at least {merge * patch} is expected: the pixels of "
                "a merge block"
            )
        hidden, wide = vision["hidden_size"], vision["intermediate_size"]
        shapes, zeros = patch_names(vision, hidden)
        for number in range(vision["depth"]):
            name = f"blocks.{number}"
            for norm in ("norm1", "norm2"):
                shapes[f"{name}.{norm}.weight"] = zeros[f"{name}.{norm}.bias"] = (hidden,)
            shapes |= linear_shapes(f"{name}.attn.qkv", 3 * hidden, hidden)
            shapes |= linear_shapes(f"{name}.attn.proj", hidden, hidden)
            for layer in ("linear_gate", "linear_fc1"):
                shapes |= linear_shapes(f"{name}.mlp.{layer}", wide, hidden)
            shapes |= linear_shapes(f"{name}.mlp.linear_fc2", hidden, wide)
        shapes["merger.norm.weight"] = zeros["merger.norm.bias"] = (hidden,)
        return whole(
            vision,
            shapes,
            zeros,
            hidden_size=hidden,
            intermediate_size=wide,
            out_hidden_size=vision["out_hidden_size"],
            activation="silu",
            is_rms=True,
            is_gated=True,
            window=window,
            full_blocks=blocks,
        )
    except KeyError as error:
        raise missing_key(error) from error


def oracle(config: Mapping[str, Any]) -> Any:
    """transformers' tower on the meta device; see export.families.Family."""
    return renamed_tower(config, "Qwen2_5_VL", "Qwen2_5_VisionTransformerPretrainedModel", RENAMED)
