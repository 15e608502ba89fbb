"""LLaVA-OneVision's tower: LLaVA's over SigLIP, and the tiles of a picture that stands alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families.llava import body, config, for_bytes, local_name, oracle, tower
from export.families.packing import Rows, packed_by
from export.families.tile_facts import (
    TileFacts,
    facts,
    image_processor,
    mean_of,
    pinpoints_of,
    sampled,
    side_of,
    video_processor,
)

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED = ("image_newline",)


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """See export.families.Family."""
    processor, patch = image_processor(folder), config["vision_config"]["patch_size"]
    if (found := re.fullmatch(r"anyres_max_(\d+)", str(config["vision_aspect_ratio"]))) is None:
        raise BundleError(f"vision_aspect_ratio is {config['vision_aspect_ratio']!r}, anyres_max_N is expected")
    side = side_of(processor.size, folder)
    tiles = Tiles(
        "anyres",
        side,
        side // patch * patch,
        1,
        patch,
        mean_of(processor),
        pinpoints_of(processor, config, folder),
        has_newline=True,
        max_map_tiles=int(found[1]),
    )
    return facts(processor, tiles, sampled(video_processor(folder, "llava_onevision", processor)))


def packed(config: Any, parts: Rows, height: int, width: int, newline: Rows | None) -> Rows:
    """See export.families.TileFamily."""
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    return packed_by(
        LlavaOnevisionModel, config, parts, height, width, newline, vision_aspect_ratio=config.vision_aspect_ratio
    )
