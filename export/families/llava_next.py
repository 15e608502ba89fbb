"""LLaVA-NeXT's tower: LLaVA's, over the whole picture and the tiles of a pinpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from export.families.clip_tower import keeps_class_row
from export.families.llava import body, config, for_bytes, local_name, oracle, tower
from export.families.packing import Rows, packed_by
from export.families.tile_facts import TileFacts, anyres_tiles, facts, image_processor

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED = ("image_newline",)


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """See export.families.Family."""
    if keeps_class_row(config):
        raise BundleError(
            f"{folder}: vision_feature_select_strategy is 'full', and a class row has no place on the map of a picture's "
            "tiles: 'default' is expected with CLIP"
        )
    processor = image_processor(folder)
    return facts(processor, anyres_tiles(folder, config, processor))


def packed(config: Any, parts: Rows, height: int, width: int, newline: Rows | None) -> Rows:
    """See export.families.TileFamily."""
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    return packed_by(
        LlavaNextModel,
        config,
        parts,
        height,
        width,
        newline,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    )
