"""Rows of tiles put together to the map of a whole picture, and what of it belongs to the picture.

A picture that lies in the middle of a canvas has rows above and below it, or beside it, that saw black. They are taken
off, and a learned row ends each of its lines.
"""

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


def num_rows(height: int, width: int, tiles: Tiles) -> int:
    """Rows of a picture: the whole one, then its map with a newline behind each line."""
    lines, columns, _, _ = _unpadded(height, width, tiles)
    return tiles.num_rows + lines * (columns + tiles.has_newline)


def unpadded(rows: Rows, height: int, width: int, tiles: Tiles, newline: Rows) -> Rows:
    """The rows of a picture in prompt order: those of the whole one, then the map's lines.

    Args:
        rows: float32 (1 + tiles, rows of a tile, H) of the tower.
        height, width: of the picture, in pixels.
        newline: float32 (H,).
    """
    side, width_h = tiles.side_rows, rows.shape[-1]
    high, wide = best_pinpoint(height, width, tiles.pinpoints)
    down, across = high // tiles.side, wide // tiles.side
    whole = rows[1:].reshape(down, across, side, side, width_h).swapaxes(1, 2)  # (down, side, across, side, H)
    picture = whole.reshape(down * side, across * side, width_h)
    lines, columns, top, left = _unpadded(height, width, tiles)
    picture = picture[top : top + lines, left : left + columns]
    ends = np.broadcast_to(newline, (picture.shape[0], 1, width_h))
    return np.concatenate([rows[0], np.concatenate([picture, ends], axis=1).reshape(-1, width_h)])
