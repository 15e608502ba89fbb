"""What the image processor of an embedding model does, as facts that the device can follow."""

from pathlib import Path
from typing import Any

from contract.errors import BundleError
from export.families.llava import one_tile_of
from export.families.tile_facts import TileFacts, facts, image_processor

FILTERS = (2, 3)  # Pillow's numbers of bilinear and bicubic


def embedder_facts(folder: Path, config: Any) -> TileFacts:
    """The tile and normalisation of a checkpoint.

    Raises:
        BundleError: the processor does something that the device does not.
    """
    found: set[str] = set()
    for resample in FILTERS:
        try:
            processor = image_processor(folder, resample)
            break
        except BundleError as error:
            found.add(str(error))
    else:
        raise BundleError(sorted(found)[0])
    return facts(processor, one_tile_of(folder, config.vision_config.to_dict(), processor))
