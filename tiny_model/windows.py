"""Random windows of the tower's position table, for training only.

With the whole table under every picture, the tower's embeddings say where things are, and the language model answers
"where" without its own M-RoPE positions: a server that counts in one dimension would hardly be noticed. A window that
changes from picture to picture makes M-RoPE the only source of positions.
"""

from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from tiny_model.architecture import MERGE_SIZE


def _axis(random: Random, length: int, side: int) -> NDArray[np.float64]:
    """Places in the table, (length,) in 0 .. side - 1: `length` patches spread over a random part of one axis."""
    share = random.uniform(0.35, 1.0)
    start = random.uniform(0.0, 1.0 - share)
    return (start + share * np.arange(length) / max(length - 1, 1)) * (side - 1)


def _block_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (h, w) as (h * w,) in merge-block order."""
    h, w = values.shape
    m = MERGE_SIZE
    return values.reshape(h // m, m, w // m, m).transpose(0, 2, 1, 3).reshape(-1)


def random_windows(random: Random, grid_thw: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """interp_indices int64 and interp_weights float32, both (patches, 4), as the tower's forward takes them.

    Args:
        grid_thw: (B, 3), the grids of the items.
        side: rows and columns of the position table.
    """
    indices, weights = [], []
    for t, h, w in grid_thw.tolist():
        rows, columns = np.meshgrid(_axis(random, h, side), _axis(random, w, side), indexing="ij")
        y, x = _block_order(rows), _block_order(columns)
        y0, x0 = np.floor(y), np.floor(x)
        y1, x1 = np.minimum(y0 + 1, side - 1), np.minimum(x0 + 1, side - 1)
        fy, fx = y - y0, x - x0
        taps = np.stack([y0 * side + x0, y0 * side + x1, y1 * side + x0, y1 * side + x1], axis=1)
        parts = np.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1)
        indices.append(np.tile(taps, (t, 1)))
        weights.append(np.tile(parts, (t, 1)))
    return {
        "interp_indices": torch.from_numpy(np.concatenate(indices).astype(np.int64)),
        "interp_weights": torch.from_numpy(np.concatenate(weights).astype(np.float32)),
    }
