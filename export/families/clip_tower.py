"""CLIP's and SigLIP's vision transformers as tile towers: their configs and the names of their tensors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from contract.errors import BundleError
from export.families.tile_tower import PATCH, TileTower, shapes

TOWER, CONNECTOR, NEWLINE = "vision_tower.", "multi_modal_projector.", "image_newline"
KINDS = ("clip_vision_model", "siglip_vision_model")


def local_name(name: str) -> str | None:
    """`model.vision_tower.vision_model.encoder…` is `vision_tower.encoder…`; see export.families.Family."""
    name = name.removeprefix("model.")
    if name.startswith(TOWER):
        return TOWER + name.removeprefix(TOWER).removeprefix("vision_model.")
    return name if name.startswith(CONNECTOR) or name == NEWLINE else None


def numbers(layers: int | list[int], depth: int) -> tuple[int, ...]:
    """The places of these layers among the hidden states, counted from 0.

    Args:
        layers: one layer or several; -1 is the last block's output, 0 the input of the first block.
        depth: how many blocks the tower has.

    Raises:
        BundleError: the tower has no such block.
    """
    found = tuple(layer % (depth + 1) for layer in ([layers] if isinstance(layers, int) else layers))
    if not found or not all(
        -depth - 1 <= layer <= depth for layer in ([layers] if isinstance(layers, int) else layers)
    ):
        raise BundleError(f"vision_feature_layer is {layers!r}, layers from {-depth - 1} to {depth} are expected")
    return found


def keeps_class_row(config: Mapping[str, Any]) -> bool:
    """Whether the connector gets CLIP's class row, which then stands in the prompt before the rows of a tile."""
    facts = config["vision_config"]["model_type"], config["vision_feature_select_strategy"]
    return facts == (KINDS[0], "full")


def tower(config: Any) -> TileTower:
    """The tower of a resolved config of the LLaVA families.

    Raises:
        BundleError: the config asks for something that the graph does not compute.
    """
    vision, text = config.vision_config, config.text_config
    if vision.model_type not in KINDS:
        raise BundleError(f"vision_config.model_type is {vision.model_type!r}, supported are {', '.join(KINDS)}")
    is_clip = vision.model_type == KINDS[0]
    features = numbers(config.vision_feature_layer, vision.num_hidden_layers)
    strategy = config.vision_feature_select_strategy
    if strategy not in ("default", "full") or (strategy == "default" and not is_clip):
        allowed = "default or full" if is_clip else "full"
        raise BundleError(
            f"vision_feature_select_strategy is {strategy!r}, {allowed} is supported with {vision.model_type}"
        )
    made = TileTower(
        depth=max(features),
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_heads=vision.num_attention_heads,
        out_hidden_size=text.hidden_size,
        patch_size=vision.patch_size,
        merge_size=1,
        activation=vision.hidden_act,
        norm_epsilon=vision.layer_norm_eps,
        fixed_side=vision.image_size // vision.patch_size,
        features=features,
        has_class_row=is_clip,
        keeps_class_row=strategy == "full",
        has_pre_norm=is_clip,
        connector_activation=config.projector_hidden_act,
        ignored=(
            f"{TOWER}post_layernorm.",
            f"{TOWER}head.",
            f"{TOWER}embeddings.position_ids",
            NEWLINE,
            *(f"{TOWER}encoder.layers.{i}." for i in range(max(features), vision.num_hidden_layers)),
        ),
    )
    has_bias = bool(getattr(config, "multimodal_projector_bias", True))
    made = replace(made, shapes=shapes(made))
    return replace(made, sources=dict(_sources(made, is_clip=is_clip, has_bias=has_bias)))


def _sources(made: TileTower, *, is_clip: bool, has_bias: bool) -> Mapping[str, tuple[str, ...]]:
    embeddings = f"{TOWER}embeddings"
    found: dict[str, tuple[str, ...]] = {
        f"{PATCH}.weight": (f"{embeddings}.patch_embedding.weight",),
        f"{PATCH}.bias": () if is_clip else (f"{embeddings}.patch_embedding.bias",),
        "class_embed": (f"{embeddings}.class_embedding",),
        "pos_embed.weight": (f"{embeddings}.position_embedding.weight",),
    }
    for kind in ("weight", "bias"):
        found[f"pre_norm.{kind}"] = (f"{TOWER}pre_layrnorm.{kind}",)
        for ours, theirs in (("linear_fc1", "linear_1"), ("linear_fc2", "linear_2")):
            is_stored = kind == "weight" or has_bias
            found[f"merger.{ours}.{kind}"] = (f"{CONNECTOR}{theirs}.{kind}",) if is_stored else ()
        for i in range(made.depth):
            found |= block_sources(f"blocks.{i}", f"{TOWER}encoder.layers.{i}", kind)
    return {name: parts for name, parts in found.items() if name in made.shapes}


def block_sources(block: str, source: str, kind: str) -> dict[str, tuple[str, ...]]:
    """Names of a block's tensors of one kind, `weight` or `bias`: ours to the names that CLIP and SigLIP use.

    Args:
        block, source: how our names begin, and those of the checkpoint.
    """
    return {
        f"{block}.norm1.{kind}": (f"{source}.layer_norm1.{kind}",),
        f"{block}.norm2.{kind}": (f"{source}.layer_norm2.{kind}",),
        f"{block}.attn.qkv.{kind}": tuple(f"{source}.self_attn.{part}_proj.{kind}" for part in "qkv"),
        f"{block}.attn.proj.{kind}": (f"{source}.self_attn.out_proj.{kind}",),
        f"{block}.mlp.linear_fc1.{kind}": (f"{source}.mlp.fc1.{kind}",),
        f"{block}.mlp.linear_fc2.{kind}": (f"{source}.mlp.fc2.{kind}",),
    }
