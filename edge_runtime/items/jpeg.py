"""How many bytes a picture takes as a JPEG of the size that the tower sees; the page compares an upload with it."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from edge_runtime.items.item import Item
from edge_runtime.items.patches import CHANNELS

QUALITY = 90


def pixels(item: Item, card: ModelCard) -> NDArray[np.uint8]:
    """The first picture of each temporal patch of an item, uint8 (t, height, width, 3): `to_patches` backwards."""
    return _pixels(item, item.patches, card)


def _pixels(item: Item, patches: NDArray[np.uint8], card: ModelCard) -> NDArray[np.uint8]:
    t, h, w = item.tower_thw
    merge, patch = card.tiles.merge if card.tiles else card.merge_size, card.patch_size
    depth = patches.shape[1] // (CHANNELS * patch * patch)
    blocks = patches.reshape(t, h // merge, w // merge, merge, merge, CHANNELS, depth, patch, patch)
    # (t, H/m, W/m, m, m, c, p, p) -> (t, H/m, m, p, W/m, m, p, c)
    return blocks[..., 0, :, :].transpose(0, 1, 3, 6, 2, 4, 7, 5).reshape(t, h * patch, w * patch, CHANNELS)


def jpeg_bytes(item: Item, card: ModelCard) -> int | None:
    """Bytes of an item's pictures as JPEG files of quality 90; None where a cache gave the rows: no pixels are left."""
    patches = item.patches  # read once: another thread may take them away
    if not len(patches):
        return None
    total = 0
    for picture in _pixels(item, patches, card):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
        total += file.tell()
    return total
