"""Pictures of an embedding model of one size: facts of its image processor, and what transformers makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from contract.tiles import Tiles
from export.families.llava import one_tile_of
from export.families.tile_facts import TileFacts, facts, image_processor
from export.graph.tower import Tower

FILTERS = (2, 3)  # Pillow's numbers of bilinear and bicubic


def processor_of(folder: Path) -> Any:
    """transformers' image processor of a checkpoint, with one of the device's filters.

    Raises:
        BundleError: the processor does something that the device does not.
    """
    found: set[str] = set()
    for resample in FILTERS:
        try:
            return image_processor(folder, resample)
        except BundleError as error:
            found.add(str(error))
    raise BundleError(sorted(found)[0])


def facts_of(folder: Path, config: Any) -> TileFacts:
    """See export.families.EmbedderFamily."""
    processor = processor_of(folder)
    return facts(processor, one_tile_of(folder, config.vision_config.to_dict(), processor))


def pixels(given: Mapping[str, Any], tiles: Tiles) -> NDArray[np.float32]:
    """See export.families.EmbedderFamily."""
    return np.asarray(given["pixel_values"])


def features(
    whole: Any, tower: Tower, tiles: Tiles, values: NDArray[np.float32], grid_thw: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The answer to tiles, whatever grid they stand in; see export.families.EmbedderFamily."""
    import torch

    side, patch = tower.fixed_side or 0, tower.patch_size
    split = torch.from_numpy(values).reshape(-1, side, side, 3, patch, patch)
    shown = split.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, tiles.seen, tiles.seen)
    rest = tiles.side - tiles.seen
    with torch.inference_mode():
        found = whole.get_image_features(pixel_values=torch.nn.functional.pad(shown, (0, rest, 0, rest)))
    vectors: NDArray[np.float32] = found.pooler_output.numpy()
    return vectors
