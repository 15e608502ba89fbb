"""LLaVA-NeXT on the device: the rows of the whole picture, then the lines of its tiles' map, a newline behind each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.preprocessing import ImageProcessing
from edge_runtime.bundle import Bundle
from edge_runtime.families.llava import clip
from edge_runtime.families.tiles import MARKS, check_picture, frame_indices, item, mode, tiles_of, write
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import anyres
from edge_runtime.items.unpad import num_rows, unpadded

__all__ = ["MARKS", "arrange", "clip", "indices", "mode", "picture", "write"]

ANYRES = "anyres"
indices = frame_indices


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """The whole picture and its tiles; see edge_runtime.families.Family."""
    check_picture(image, options)
    tiles, size = tiles_of(card), (image.height, image.width)
    return item(anyres(image, tiles), tiles, 1, num_rows(*size, tiles), (ANYRES, *size))


def arrange(rows: NDArray[np.float32], items: Sequence[Item], bundle: Bundle) -> NDArray[np.float32]:
    """Unpadded maps with newlines; see edge_runtime.families.Family."""
    tiles = tiles_of(bundle.manifest.card)
    found, start = [rows[:0]], 0
    for one in items:
        assert one.arranged is not None  # `picture` sets it
        _, height, width = one.arranged
        end = start + one.tower_thw[0] * tiles.num_rows
        parts = rows[start:end].reshape(-1, tiles.num_rows, rows.shape[1])  # (1 + tiles, rows of a tile, H)
        found.append(unpadded(parts, height, width, tiles, bundle.newline))
        start = end
    return np.concatenate(found)
