"""Qwen2-VL's vision tower: any grid, rotary angles alone, quick GELU; and what Qwen2.5-VL shares with it.

These checkpoints give the layers other names than Qwen3-VL's do. This file translates them to Qwen3-VL's names, so that
the code that calibrates, rotates and measures a tower need not know its family.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.families import missing_key
from export.families.qwen3_vl import PREFIXES, ROPE_THETA, SHARED, body, facts_of, for_bytes, static, vision_model
from export.families.tile_facts import resolved
from export.graph.tower import Tower, block_shapes, linear_shapes, norm_shapes
from export.source.processors import BOTH, PICTURE_DEFAULTS

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

VIDEO: dict[str, Any] = BOTH | {  # Qwen2VLVideoProcessor of transformers 5.23
    "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768},
    "image_mean": PICTURE_DEFAULTS["image_mean"], "image_std": PICTURE_DEFAULTS["image_std"], "patch_size": 14,
    "do_sample_frames": False, "fps": None, "num_frames": None, "min_frames": 4, "max_frames": 768,
    "cap_pixels_per_frame": None, "max_video_tokens": 128_000, "min_pixels": None, "max_pixels": None,
}  # fmt: skip
# torch.arange multiplies in float32, and transformers cuts the product off: 29.999998 becomes frame 29. How a processor
# rounds decides which frames that meets, so the device computes in whole numbers.
FRAMES_ROUNDED = 0.02
RENAMED = {"fc1": "linear_fc1", "fc2": "linear_fc2"}
MERGER = {"ln_q": "norm", "mlp.0": "linear_fc1", "mlp.2": "linear_fc2"}


def local_name(name: str) -> str | None:
    """`visual.blocks.0.mlp.fc1.bias` is `blocks.0.mlp.linear_fc1.bias`; see export.families.Family."""
    return local(name, RENAMED)


def local(name: str, layers: Mapping[str, str]) -> str | None:
    """The tower-local name of a tensor; None where it is outside the tower.

    Args:
        layers: our names of the MLP's layers, by the checkpoint's names.
    """
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        return None
    found = re.fullmatch(r"(blocks\.\d+\.mlp|merger)\.(\w+(?:\.\d)?)\.(weight|bias)", name.removeprefix(prefix))
    if found is None:
        return name.removeprefix(prefix)
    owner, layer, kind = found.groups()
    return f"{owner}.{(MERGER if owner == 'merger' else layers).get(layer, layer)}.{kind}"


def config(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config with its classes' defaults; checkpoints of the hub have the language model's keys at the top. See
    export.families.Family."""
    return dict(resolved(values).to_dict())


def tower(config: Mapping[str, Any]) -> Tower:
    """Read vision_config; see export.families.Family."""
    try:
        vision = config["vision_config"]
        require(vision, hidden_act="quick_gelu", in_channels=3, temporal_patch_size=2)
        hidden = vision["embed_dim"]
        wide = int(hidden * vision["mlp_ratio"])
        shapes, zeros = patch_names(vision, hidden)
        for number in range(vision["depth"]):
            shapes |= block_shapes(number, hidden, wide)
        shapes |= norm_shapes("merger.norm", hidden)
        return whole(
            vision,
            shapes,
            zeros,
            hidden_size=hidden,
            intermediate_size=wide,
            out_hidden_size=vision["hidden_size"],
            activation="quick_gelu",
        )
    except KeyError as error:
        raise missing_key(error) from error


def require(vision: Mapping[str, Any], **allowed: Any) -> None:
    """Refuse a vision_config that asks for something other than `allowed`, or for other rotary angles than the graph's.

    Raises:
        BundleError: a key has another value.
        KeyError: a key of `allowed` is missing.
    """
    rope = vision.get("rope_parameters") or {}
    found = {name: vision[name] for name in allowed} | {"rope_type": rope.get("rope_type", "axial")}
    for name, value in found.items():
        if value != (expected := {**allowed, "rope_type": "axial"}[name]):
            raise BundleError(f"vision_config.{name} is {value!r}, the graph computes {expected!r}")


def patch_names(
    vision: Mapping[str, Any], hidden: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Name and shape of the patch embedding's weight, then of its bias, which these checkpoints lack."""
    patch = vision["patch_size"]
    return (
        {"patch_embed.proj.weight": (hidden, 3, vision["temporal_patch_size"], patch, patch)},
        {"patch_embed.proj.bias": (hidden,)},
    )


def whole(
    vision: Mapping[str, Any],
    shapes: dict[str, tuple[int, ...]],
    zeros: dict[str, tuple[int, ...]],
    *,
    hidden_size: int,
    out_hidden_size: int,
    **others: Any,
) -> Tower:
    """The tower of these tensors and the merger's linear layers.

    Args:
        shapes: name and shape of the other tensors that the checkpoint has.
        zeros: name and shape of the tensors that it lacks.
        others: further fields of Tower.

    Raises:
        BundleError: the heads have no width that the graph can rotate.
        KeyError: a key is missing.
    """
    rope, merged = vision.get("rope_parameters") or {}, hidden_size * vision["spatial_merge_size"] ** 2
    shapes |= linear_shapes("merger.linear_fc1", merged, merged)
    shapes |= linear_shapes("merger.linear_fc2", out_hidden_size, merged)
    made = Tower(
        depth=vision["depth"],
        hidden_size=hidden_size,
        out_hidden_size=out_hidden_size,
        num_heads=vision["num_heads"],
        table_side=0,
        taps=(),
        patch_size=vision["patch_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        merge_size=vision["spatial_merge_size"],
        rope_theta=float(rope.get("rope_theta", ROPE_THETA)),
        shapes=shapes,
        zeros=zeros,
        **others,
    )
    if hidden_size % made.num_heads or made.head_dim % 4:
        raise BundleError(
            f"vision_config: width {hidden_size} over {made.num_heads} heads must give heads whose width is a multiple of 4"
        )
    return made


def oracle(config: Mapping[str, Any]) -> Any:
    """transformers' tower on the meta device; see export.families.Family."""
    return renamed_tower(config, "Qwen2VL", "Qwen2VisionTransformerPretrainedModel", RENAMED)


def renamed_tower(config: Mapping[str, Any], prefix: str, tower: str, layers: Mapping[str, str]) -> Any:
    """transformers' tower on the meta device, with its modules under tower-local names.

    Its own code still finds each module under transformers' name: as a plain attribute, which a state dict does not
    list.

    Args:
        prefix: how transformers' class names begin.
        tower: the name of the tower's class.
        layers: our names of the MLP's layers, by transformers' names.
    """
    model = vision_model(config, prefix, tower)
    for block in model.blocks:
        for theirs, ours in layers.items():
            _rename(block.mlp, theirs, ours)
    steps = model.merger.mlp
    _rename(model.merger, "ln_q", "norm")
    _rename(model.merger, "mlp", "")
    model.merger.linear_fc1, model.merger.linear_fc2 = steps[0], steps[2]
    return model


def _rename(owner: Any, old: str, new: str) -> None:
    """Register a module under the name `new`, or under none where it is empty, and keep it as the plain attribute
    `old`."""
    module = owner._modules.pop(old)
    owner.__dict__[old] = module
    if new:
        setattr(owner, new, module)
