"""LLaVA-OneVision on the device: it cuts a single picture into tiles, makes one tile of each of several, pools frames.

transformers counts the pictures of a conversation (`batch_num_images`), so a picture's rows depend on whether there are
others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.preprocessing import ImageProcessing, VideoProcessing
from contract.tiles import Tiles
from edge_runtime.bundle import Bundle
from edge_runtime.families.tiles import MARKS, check_picture, frame_indices, frame_pixels, item, tiles_of, write
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import anyres, padded
from edge_runtime.items.unpad import bilinear, num_rows, unpadded
from edge_runtime.items.video_options import timestamps

__all__ = ["MARKS", "arrange", "clip", "indices", "mode", "picture", "write"]

ALONE, AMONG_OTHERS, FRAMES = "alone", "among others", "frames"
indices = frame_indices


def mode(num_pictures: int) -> str:
    """Whether a picture stands alone or among others; see edge_runtime.families.Family."""
    return AMONG_OTHERS if num_pictures > 1 else ALONE


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """Alone: the whole picture and its tiles; else the picture in a square; see edge_runtime.families.Family."""
    check_picture(image, options)
    tiles, size = tiles_of(card), (image.height, image.width)
    if mode == AMONG_OTHERS:
        pixels = padded(image, tiles.side, tiles.mean)[None]
        return item(pixels, tiles, 1, tiles.num_rows + 1, (AMONG_OTHERS, *size))
    return item(anyres(image, tiles), tiles, 1, num_rows(*size, tiles), (ALONE, *size))


def _pooled_side(tiles: Tiles) -> int:
    """How many rows stand along a side of a pooled video frame."""
    return -(-tiles.side_rows // 2)


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """All frames in one run, a newline behind the last; see edge_runtime.families.Family."""
    tiles = tiles_of(card)
    pixels = frame_pixels(clip.images, clip.options, tiles.side)
    rows = len(pixels) * _pooled_side(tiles) ** 2 + 1
    return item(pixels, tiles, 1, rows, (FRAMES, 0, 0), timestamps(clip.indices, clip.fps, 1))


def arrange(rows: NDArray[np.float32], items: Sequence[Item], bundle: Bundle) -> NDArray[np.float32]:
    """Unpadded maps with newlines, squares and pooled frames with one; see edge_runtime.families.Family."""
    tiles = tiles_of(bundle.manifest.card)
    side, width_h, newline = tiles.side_rows, rows.shape[1], bundle.newline[None]
    found, start = [rows[:0]], 0
    for one in items:
        assert one.arranged is not None  # `picture` and `clip` set it
        how, height, width = one.arranged
        end = start + one.tower_thw[0] * tiles.num_rows
        if how == ALONE:
            parts = rows[start:end].reshape(-1, tiles.num_rows, width_h)  # (1 + tiles, rows of a tile, H)
            found.append(unpadded(parts, height, width, tiles, bundle.newline))
        elif how == FRAMES:
            maps = rows[start:end].reshape(-1, side, side, width_h)  # (frames, side, side, H)
            pooled = bilinear(maps, _pooled_side(tiles), _pooled_side(tiles))
            found += [pooled.reshape(-1, width_h), newline]
        else:
            found += [rows[start:end], newline]
        start = end
    return np.concatenate(found)
