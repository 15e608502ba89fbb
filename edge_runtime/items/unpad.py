"""The rows of a picture's tiles, put together to the map of the whole canvas, and the part that shows the picture.

A picture that lies in the middle of a canvas has rows above and below it, or beside it, that saw black. This module
takes them off and ends each line of the map with a learned row, the newline.
"""

import math

import numpy as np
from numpy.typing import NDArray

from contract.tiles import Tiles
from edge_runtime.items.tiles import best_pinpoint

Rows = NDArray[np.float32]


def _unpadded(height: int, width: int, tiles: Tiles) -> tuple[int, int, int, int]:
    """Lines and columns of a picture's map, and the first of each that belong to the picture.

    Args:
        height, width: of the picture, in pixels.

    The rule is `unpad_image` of transformers' LLaVA-NeXT model.
    """
    high, wide = best_pinpoint(height, width, tiles.pinpoints)
    lines, columns = high // tiles.side * tiles.side_rows, wide // tiles.side * tiles.side_rows
    if width / height > columns / lines:
        kept = int(round(height * (columns / width), 7))
        top = (lines - kept) // 2
        return lines - 2 * top, columns, top, 0
    kept = int(round(width * (lines / height), 7))
    left = (columns - kept) // 2
    return lines, columns - 2 * left, 0, left


def _shrunk(lines: int, columns: int, tiles: Tiles) -> tuple[int, int]:
    """Lines and columns of a map, after interpolation where it has more than `max_map_tiles` tiles.

    The rule is `pack_image_features` of transformers' LLaVA-OneVision model.
    """
    if tiles.max_map_tiles is None:
        return lines, columns
    ratio = math.sqrt(lines * columns / (tiles.max_map_tiles * tiles.side_rows**2))
    return (int(lines // ratio), int(columns // ratio)) if ratio > 1.1 else (lines, columns)


def bilinear(maps: Rows, lines: int, columns: int) -> Rows:
    """Maps (..., rows, columns, H) resized to (..., lines, columns, H); each value follows from its four neighbours.

    The rule is torch's `interpolate` with mode bilinear, align_corners False and no antialiasing.
    """
    for axis, size in ((-3, lines), (-2, columns)):
        old = maps.shape[axis]
        places = np.maximum((np.arange(size, dtype=np.float32) + 0.5) * np.float32(old / size) - 0.5, 0)
        first = np.minimum(places.astype(np.int64), old - 1)
        second = np.minimum(first + 1, old - 1)
        share = (places - first).reshape(-1, *[1] * (-axis - 1))  # the weight of the second
        maps = maps.take(first, axis) * (1 - share) + maps.take(second, axis) * share
    return maps


def num_rows(height: int, width: int, tiles: Tiles) -> int:
    """How many rows a picture takes: those of its whole tile, then those of its map with a newline behind each line.

    Args:
        height, width: of the picture, in pixels.
    """
    lines, columns, _, _ = _unpadded(height, width, tiles)
    lines, columns = _shrunk(lines, columns, tiles)
    return tiles.num_rows + lines * (columns + tiles.has_newline)


def unpadded(rows: Rows, height: int, width: int, tiles: Tiles, newline: Rows) -> Rows:
    """The rows of a picture in prompt order, float32 (n, H): those of its whole tile, then the lines of its map.

    Args:
        rows: float32 (1 + tiles, rows of a tile, H) of the tower.
        height, width: of the picture, in pixels.
        newline: float32 (H,), the learned row that ends a line.
    """
    side, width_h = tiles.side_rows, rows.shape[-1]
    high, wide = best_pinpoint(height, width, tiles.pinpoints)
    down, across = high // tiles.side, wide // tiles.side
    whole = rows[1:].reshape(down, across, side, side, width_h).swapaxes(1, 2)  # (down, side, across, side, H)
    picture = whole.reshape(down * side, across * side, width_h)
    lines, columns, top, left = _unpadded(height, width, tiles)
    picture = picture[top : top + lines, left : left + columns]
    if (small := _shrunk(lines, columns, tiles)) != (lines, columns):
        picture = bilinear(picture, *small)
    ends = np.broadcast_to(newline, (picture.shape[0], 1, width_h))
    return np.concatenate([rows[0], np.concatenate([picture, ends], axis=1).reshape(-1, width_h)])
