"""LLaVA-1.5's tower: CLIP or SigLIP, a connector of two layers, one tile a picture."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families import clip_tower
from export.families.clip_tower import local_name
from export.families.packing import joined as packed
from export.families.tile_facts import TileFacts, facts, image_processor, mean_of, resolved, side_of
from export.families.tile_tower import TileTower, body, for_bytes

__all__ = ["SHARED", "body", "config", "facts_of", "for_bytes", "local_name", "oracle", "packed", "tower"]

SHARED: tuple[str, ...] = ()


def config(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config with its classes' defaults; see export.families.Family."""
    return dict(resolved(values).to_dict())


def tower(config: Mapping[str, Any]) -> TileTower:
    """See export.families.Family."""
    return clip_tower.tower(resolved(config))


def oracle(config: Mapping[str, Any]) -> Any:
    """See export.families.Family."""
    from export.families.tile_oracle import TileOracle, taken

    whole = resolved(config)
    made, vision = clip_tower.tower(whole), whole.vision_config
    select = taken(made.features, drops_first=made.has_class_row and not made.keeps_class_row)
    return TileOracle(whole, select, side=vision.image_size, patch=vision.patch_size, merge=1)


def facts_of(folder: Path, config: Mapping[str, Any]) -> TileFacts:
    """The processor crops, pads or squashes a picture to one tile; see export.families.Family."""
    processor = image_processor(folder)
    tiles = one_tile_of(folder, config["vision_config"], processor)
    return facts(processor, replace(tiles, extra_rows=int(clip_tower.keeps_class_row(config))))


def one_tile_of(folder: Path, vision: Mapping[str, Any], processor: Any) -> Tiles:
    """How a processor makes one tile of a picture.

    Raises:
        BundleError: the tower takes another size.
    """
    crops = bool(getattr(processor, "do_center_crop", False))
    side = side_of(processor.crop_size if crops else processor.size, folder)
    rule = "pad" if getattr(processor, "do_pad", False) else "crop" if crops else "squash"
    if side != vision["image_size"]:
        raise BundleError(
            f"{folder}: the processor makes {side} pixels, vision_config.image_size is {vision['image_size']}"
        )
    patch = vision["patch_size"]
    return Tiles(rule, side, side // patch * patch, 1, patch, mean_of(processor))
