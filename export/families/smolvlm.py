"""SmolVLM's tower: SigLIP with its last norm; blocks of patches become one row; the connector has one layer."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families.clip_tower import block_sources
from export.families.packing import joined as packed
from export.families.tile_facts import (
    LANCZOS,
    MAX_FRAMES,
    TileFacts,
    facts,
    image_processor,
    mean_of,
    resolved,
    video_processor,
)
from export.families.tile_tower import PATCH, TileTower, body, for_bytes, shapes

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED: tuple[str, ...] = ()
TOWER, CONNECTOR = "vision_model.", "connector."
MAX_LONGEST = 4096  # transformers shrinks what is larger


def local_name(name: str) -> str | None:
    """`model.vision_model.encoder…` is `vision_model.encoder…`; see export.families.Family."""
    name = name.removeprefix("model.")
    return name if name.startswith((TOWER, CONNECTOR)) else None


def config(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config with its classes' defaults; see export.families.Family."""
    return dict(resolved(values).to_dict())


def tower(config: Mapping[str, Any]) -> TileTower:
    """See export.families.Family."""
    whole = resolved(config)
    vision, text = whole.vision_config, whole.text_config
    made = TileTower(
        depth=vision.num_hidden_layers,
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_heads=vision.num_attention_heads,
        out_hidden_size=text.hidden_size,
        patch_size=vision.patch_size,
        merge_size=whole.scale_factor,
        activation=vision.hidden_act,
        norm_epsilon=vision.layer_norm_eps,
        fixed_side=vision.image_size // vision.patch_size,
        features=(vision.num_hidden_layers,),
        has_post_norm=True,
        connector_layers=1,
    )
    if made.side % made.merge_size:
        raise BundleError(
            f"scale_factor is {made.merge_size}, a divisor of the {made.side} patches on a tile's side is expected"
        )
    made = replace(made, shapes=shapes(made))
    return replace(made, sources=dict(_sources(made)))


def _sources(made: TileTower) -> Mapping[str, tuple[str, ...]]:
    embeddings = f"{TOWER}embeddings"
    found: dict[str, tuple[str, ...]] = {
        "pos_embed.weight": (f"{embeddings}.position_embedding.weight",),
        "merger.linear_fc1.weight": (f"{CONNECTOR}modality_projection.proj.weight",),
        "merger.linear_fc1.bias": (),
    }
    for kind in ("weight", "bias"):
        found[f"{PATCH}.{kind}"] = (f"{embeddings}.patch_embedding.{kind}",)
        found[f"post_norm.{kind}"] = (f"{TOWER}post_layernorm.{kind}",)
        for i in range(made.depth):
            found |= block_sources(f"blocks.{i}", f"{TOWER}encoder.layers.{i}", kind)
    return found


def oracle(config: Mapping[str, Any]) -> Any:
    """See export.families.Family."""
    from export.families.tile_oracle import TileOracle

    whole = resolved(config)
    vision, names = whole.vision_config, (TOWER[:-1], CONNECTOR[:-1])
    sizes = {"side": vision.image_size, "patch": vision.patch_size, "merge": whole.scale_factor}
    return TileOracle(whole, lambda outputs: outputs.last_hidden_state, parts=names, **sizes)


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """See export.families.Family."""
    processor, vision = image_processor(folder, LANCZOS), config["vision_config"]
    side, longest = (int(size["longest_edge"]) for size in (processor.max_image_size, processor.size))
    videos = video_processor(folder, "smolvlm", processor)
    frame_longest = int(videos.size.longest_edge)
    if side != vision["image_size"] or int(videos.max_image_size["longest_edge"]) != side:
        raise BundleError(
            f"{folder}: the processors make {side} and {videos.max_image_size['longest_edge']} pixels, "
            f"vision_config.image_size is {vision['image_size']}"
        )
    if max(longest, frame_longest) > MAX_LONGEST:
        raise BundleError(
            f"{folder}: size.longest_edge is {max(longest, frame_longest)}, up to {MAX_LONGEST} is allowed"
        )
    most = math.ceil(longest / side) ** 2 if processor.do_image_splitting else 1
    tiles = Tiles(
        "longest",
        side,
        side,
        config["scale_factor"],
        vision["patch_size"],
        mean_of(processor),
        max_tiles=most,
        longest=longest,
        frame_longest=frame_longest,
    )
    frames = float(videos.fps or 1), None  # transformers samples in a conversation, whatever do_sample_frames says
    return facts(processor, tiles, frames, int(videos.num_frames or MAX_FRAMES))
