"""Qwen3-VL's vision tower: any grid, an interpolated position table and rotary angles, deepstack levels by mergers.

Nothing here imports onnx, because export.language asks for the names of tensors without it; qwen_body has the graph
itself. `tower` refuses a config that asks for something the graph would have to ignore, because that gives a wrong
embedding without an error.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import BundleError
from contract.families import missing_key
from contract.families.qwen3_vl import deepstack_blocks
from contract.preprocessing import ImageProcessing
from export.families import Read
from export.graph.tower import Tower, block_shapes, linear_shapes, norm_shapes
from export.source.processors import VIDEO_DEFAULTS

if TYPE_CHECKING:
    from export.graph.builder import Builder
    from export.graph.group import Group
    from export.graph.layers import Layers
    from export.static.grid import Grid
    from export.static.layers import StaticLayers

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

PREFIXES = ("model.visual.", "visual.")
SHARED: tuple[str, ...] = ()
VIDEO = VIDEO_DEFAULTS
FRAMES_ROUNDED = 0.0
ACTIVATION = "gelu_pytorch_tanh"
ROPE_THETA = 10_000.0  # transformers' default where the config is silent
CLASSES = {"qwen3_vl": "Qwen3VL", "qwen3_vl_moe": "Qwen3VLMoe"}  # model_type: how transformers' class names begin


def local_name(name: str) -> str | None:
    """`model.visual.merger.norm.bias` is `merger.norm.bias`; see export.families.Family."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), None)


def config(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config as it is; see export.families.Family."""
    return dict(values)


def facts_of(folder: Path, config: Mapping[str, Any]) -> None:
    """No tiles; see export.families.Family."""


def tower(config: Mapping[str, Any]) -> Tower:
    """Read vision_config; see export.families.Family."""
    try:
        return tower_with_taps(config, deepstack_blocks(config))
    except KeyError as error:
        raise missing_key(error) from error


def tower_with_taps(config: Mapping[str, Any], taps: tuple[int, ...]) -> Tower:
    """The tower of a config whose levels come from these blocks.

    Args:
        taps: for each deepstack merger the number of its block, from 0 on.

    Raises:
        BundleError: a key is missing, or asks for something that the graph does not compute.
    """
    try:
        vision = config["vision_config"]
        rope = vision.get("rope_parameters") or {}
        tower = Tower(
            depth=vision["depth"],
            hidden_size=vision["hidden_size"],
            intermediate_size=vision["intermediate_size"],
            num_heads=vision["num_heads"],
            out_hidden_size=vision["out_hidden_size"],
            table_side=math.isqrt(vision["num_position_embeddings"]),
            taps=taps,
            patch_size=vision["patch_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            merge_size=vision["spatial_merge_size"],
            rope_theta=float(rope.get("rope_theta", ROPE_THETA)),
        )
    except KeyError as error:
        raise missing_key(error) from error
    for key, value, allowed in (
        ("hidden_act", vision.get("hidden_act", ACTIVATION), ACTIVATION),
        ("in_channels", vision.get("in_channels", 3), 3),
        ("temporal_patch_size", vision["temporal_patch_size"], 2),
        ("rope_parameters.rope_type", rope.get("rope_type", "axial"), "axial"),
        ("head_dim", vision.get("head_dim", tower.head_dim), tower.head_dim),
        ("num_position_embeddings", vision["num_position_embeddings"], tower.table_side**2),
    ):
        if value != allowed:
            raise BundleError(f"vision_config.{key} is {value!r}, the graph computes {allowed!r}")
    if tower.hidden_size % tower.num_heads or tower.head_dim % 4:
        raise BundleError(
            f"vision_config: hidden_size {tower.hidden_size} over {tower.num_heads} heads must give heads whose "
            "width is a multiple of 4"
        )
    if len(set(tower.taps)) != len(tower.taps) or not all(0 <= tap < tower.depth for tap in tower.taps):
        raise BundleError(
            f"vision_config.deepstack_visual_indexes is {list(tower.taps)}, different blocks from 0 to "
            f"{tower.depth - 1} are allowed"
        )
    return replace(tower, shapes=_shapes(tower))


def _shapes(tower: Tower) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor; the names are those of transformers' Qwen3VLVisionModel."""
    hidden, merged = tower.hidden_size, tower.merged_size
    found: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (hidden, 3, tower.temporal_patch_size, tower.patch_size, tower.patch_size),
        "patch_embed.proj.bias": (hidden,),
        "pos_embed.weight": (tower.table_side**2, hidden),
    }
    for number in range(tower.depth):
        found |= block_shapes(number, hidden, tower.intermediate_size)
    mergers = {"merger": hidden} | {f"deepstack_merger_list.{i}": merged for i in range(len(tower.taps))}
    for name, norm_width in mergers.items():
        found |= norm_shapes(f"{name}.norm", norm_width)
        found |= linear_shapes(f"{name}.linear_fc1", merged, merged)
        found |= linear_shapes(f"{name}.linear_fc2", tower.out_hidden_size, merged)
    return found


def body(graph: "Builder", layers: "Layers", tower: Tower, group: "Group") -> tuple[str, list[str]]:
    """The tower over one group of frames; see export.families.Family."""
    from export.families.qwen_body import write_body

    return write_body(graph, layers, tower, group)


def static(graph: "Builder", layers: "StaticLayers", tower: Tower, grid: "Grid", patches: str) -> tuple[str, list[str]]:
    """The tower over one frame of one size; see export.families.Family."""
    from export.families.qwen_static import write_static

    return write_static(graph, layers, tower, grid, patches)


def for_bytes(read: Read, image: ImageProcessing) -> Read:
    """See export.families.Family and export.families.qwen_patches."""
    from export.families import qwen_patches

    return qwen_patches.for_bytes(read, image)


def oracle(config: Mapping[str, Any]) -> Any:
    """transformers' tower on the meta device; see export.families.Family."""
    return vision_model(config, CLASSES[config["model_type"]])


def vision_model(config: Mapping[str, Any], prefix: str, tower: str = "") -> Any:
    """transformers' tower on the meta device, from the package with the model_type's name.

    Args:
        prefix: how the package's class names begin.
        tower: the name of the tower's class, where it is not the prefix and `VisionModel`.
    """
    import torch

    name = config["model_type"]
    settings = getattr(import_module(f"transformers.models.{name}.configuration_{name}"), f"{prefix}VisionConfig")
    modeling = import_module(f"transformers.models.{name}.modeling_{name}")
    vision = settings(**{k: v for k, v in config["vision_config"].items() if k not in ("model_type", "dtype")})
    vision._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = getattr(modeling, tower or f"{prefix}VisionModel")(vision)
    # The frequencies are no parameter of the checkpoint: make them again, on a real device.
    model.rotary_pos_emb = getattr(modeling, f"{prefix}VisionRotaryEmbedding")(vision)
    return model
