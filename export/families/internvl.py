"""InternVL's tower: InternViT with layer scale, a row for each block of 2 x 2 patches, a norm before the connector."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families.clip_tower import CONNECTOR, TOWER, local_name, numbers
from export.families.packing import joined as packed
from export.families.tile_facts import (
    TileFacts,
    facts,
    image_processor,
    mean_of,
    resolved,
    sampled,
    side_of,
    video_processor,
)
from export.families.tile_tower import PATCH, TileTower, body, for_bytes, shapes
from export.graph.operators import NORM_EPSILON

if TYPE_CHECKING:
    import torch

    from export.families.tile_oracle import Select

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED: tuple[str, ...] = ()
MARKERS = {"vision_start_token_id": "start_image_token", "vision_end_token_id": "end_image_token"}
NORMS = ("layer_norm", "rms_norm")  # the tower of 6B has the second, and norms of queries and keys
CONNECTOR_EPSILON = 1e-5  # torch's default, which InternVLMultiModalProjector takes


def config(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config with its classes' defaults, and the tokens around a run; see export.families.Family."""
    import transformers

    found = dict(resolved(values).to_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for key, token in MARKERS.items():
        if (text := getattr(tokenizer, token, None)) is None:
            raise BundleError(
                f"{folder}: the tokenizer has no {token}: give the tokenizer of the model's own checkpoint"
            )
        found[key] = tokenizer.convert_tokens_to_ids(text)
    return found


def _merge(values: Any) -> int:
    ratio: float = values.downsample_ratio
    return round(1 / ratio)


def tower(config: Mapping[str, Any]) -> TileTower:
    """See export.families.Family."""
    whole = resolved(config)
    vision, text = whole.vision_config, whole.text_config
    for key, value, allowed in (
        ("use_mean_pooling", vision.use_mean_pooling, True),
        ("use_absolute_position_embeddings", vision.use_absolute_position_embeddings, True),
        ("image_size", len(set(vision.image_size)), 1),
        ("vision_feature_select_strategy", whole.vision_feature_select_strategy, "default"),
    ):
        if value != allowed:
            raise BundleError(f"vision_config.{key} is {value!r}, the graph computes {allowed!r}")
    if vision.norm_type not in NORMS:
        raise BundleError(f"vision_config.norm_type is {vision.norm_type!r}, the graph has {', '.join(NORMS)}")
    if vision.norm_type == NORMS[1] and vision.layer_norm_eps != NORM_EPSILON:
        raise BundleError(
            f"vision_config.layer_norm_eps is {vision.layer_norm_eps}, the graph has {NORM_EPSILON} with rms_norm"
        )
    features = numbers(whole.vision_feature_layer, vision.num_hidden_layers)
    made = TileTower(
        depth=max(features),
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_heads=vision.num_attention_heads,
        out_hidden_size=text.hidden_size,
        patch_size=vision.patch_size[0],
        merge_size=_merge(whole),
        activation=vision.hidden_act,
        norm_epsilon=vision.layer_norm_eps,
        fixed_side=vision.image_size[0] // vision.patch_size[0],
        features=features,
        has_class_row=True,
        connector_activation=whole.projector_hidden_act,
        connector_epsilon=CONNECTOR_EPSILON,
        is_rms=vision.norm_type == "rms_norm",
        has_qk_norm=vision.use_qk_norm,
        ignored=(
            f"{TOWER}embeddings.mask_token",
            *(f"{TOWER}encoder.layer.{i}." for i in range(max(features), vision.num_hidden_layers)),
        ),
    )
    sources = dict(_sources(made, has_bias=vision.attention_bias))
    scales = {
        f"blocks.{i}.{layer}.{kind}": f"{TOWER}encoder.layer.{i}.{scale}"
        for i in range(made.depth)
        for layer, scale in (("attn.proj", "lambda_1"), ("mlp.linear_fc2", "lambda_2"))
        for kind in ("weight", "bias")
    }
    return replace(made, shapes=shapes(made), sources=sources, scales=scales)


def _sources(made: TileTower, *, has_bias: bool) -> Mapping[str, tuple[str, ...]]:
    embeddings = f"{TOWER}embeddings"
    found: dict[str, tuple[str, ...]] = {
        "class_embed": (f"{embeddings}.cls_token",),
        "pos_embed.weight": (f"{embeddings}.position_embeddings",),
    }
    for kind in ("weight", "bias"):
        found[f"{PATCH}.{kind}"] = (f"{embeddings}.patch_embeddings.projection.{kind}",)
        for ours, theirs in (("norm", "layer_norm"), ("linear_fc1", "linear_1"), ("linear_fc2", "linear_2")):
            found[f"merger.{ours}.{kind}"] = (f"{CONNECTOR}{theirs}.{kind}",)
        for i in range(made.depth):
            block, theirs = f"blocks.{i}", f"{TOWER}encoder.layer.{i}"
            packed = tuple(f"{theirs}.attention.{part}_proj.{kind}" for part in "qkv")
            for ours, norm in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
                is_stored = kind == "weight" or not made.is_rms
                found[f"{block}.{ours}.{kind}"] = (f"{theirs}.{norm}.{kind}",) if is_stored else ()
            if made.has_qk_norm and kind == "weight":
                for norm in ("q_norm", "k_norm"):
                    found[f"{block}.attn.{norm}.weight"] = (f"{theirs}.attention.{norm}.weight",)
            found[f"{block}.attn.qkv.{kind}"] = packed if kind == "weight" or has_bias else ()
            found[f"{block}.attn.proj.{kind}"] = (f"{theirs}.attention.projection_layer.{kind}",)
            found[f"{block}.mlp.linear_fc1.{kind}"] = (f"{theirs}.mlp.fc1.{kind}",)
            found[f"{block}.mlp.linear_fc2.{kind}"] = (f"{theirs}.mlp.fc2.{kind}",)
    return found


def oracle(config: Mapping[str, Any]) -> Any:
    """See export.families.Family."""
    from export.families.tile_oracle import TileOracle

    whole = resolved(config)
    side, patch = whole.vision_config.image_size[0], whole.vision_config.patch_size[0]
    select = _shuffled(numbers(whole.vision_feature_layer, whole.vision_config.num_hidden_layers), whole)
    return TileOracle(whole, select, side=side, patch=patch, merge=_merge(whole))


def _shuffled(layers: tuple[int, ...], whole: Any) -> "Select":
    """A function that takes the last state without its class row; transformers' own code shuffles it."""
    from transformers.models.internvl.modeling_internvl import InternVLModel

    def select(outputs: Any) -> "torch.Tensor":
        features = outputs.hidden_states[layers[0]][:, 1:]
        side = int(features.shape[1] ** 0.5)
        features = features.reshape(len(features), side, side, -1)
        shuffled = InternVLModel.pixel_shuffle(None, features, whole.downsample_ratio)
        rows: torch.Tensor = shuffled.reshape(len(features), -1, shuffled.shape[-1])
        return rows

    return select


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """See export.families.Family."""
    processor, vision = image_processor(folder), config["vision_config"]
    side, patch = side_of(processor.size, folder), vision["patch_size"][0]
    if side != vision["image_size"][0]:
        raise BundleError(
            f"{folder}: the processor makes {side} pixels, vision_config.image_size is {vision['image_size']}"
        )
    mean = mean_of(processor)
    merge = round(1 / config["downsample_ratio"])
    low, high = int(processor.min_patches), int(processor.max_patches)
    tiles = Tiles("canvas", side, side, merge, patch, mean, min_tiles=low, max_tiles=high)
    return facts(processor, tiles, sampled(video_processor(folder, "internvl", processor)))
