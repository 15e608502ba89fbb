"""LLaVA-OneVision's tower: LLaVA's over SigLIP, and the tiles of a picture that stands alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from export.families.llava import body, config, for_bytes, local_name, oracle, tower
from export.families.packing import Rows, packed_by
from export.families.tile_facts import TileFacts, anyres_tiles, facts, image_processor, sampled, video_processor

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED = ("image_newline",)


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """See export.families.Family."""
    if (found := re.fullmatch(r"anyres_max_(\d+)", str(config["vision_aspect_ratio"]))) is None:
        raise BundleError(f"vision_aspect_ratio is {config['vision_aspect_ratio']!r}, anyres_max_N is expected")
    processor = image_processor(folder)
    tiles = anyres_tiles(folder, config, processor, max_map_tiles=int(found[1]))
    return facts(processor, tiles, sampled(video_processor(folder, "llava_onevision", processor)))


def packed(config: Any, parts: Rows, height: int, width: int, newline: Rows | None) -> Rows:
    """See export.families.TileFamily."""
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    return packed_by(
        LlavaOnevisionModel, config, parts, height, width, newline, vision_aspect_ratio=config.vision_aspect_ratio
    )
