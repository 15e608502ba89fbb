"""The patches of a still picture as a static graph takes them: one slice of time, in float32."""

import numpy as np
from numpy.typing import NDArray

MIDDLE = 128  # the middle of the bytes, and their divisor, as in the graph of every size
SLICES, CHANNELS = 2, 3


def is_still(patches: NDArray[np.uint8]) -> bool:
    """Whether both slices of time are equal, uint8 (n, 2 * 3 * patch^2)."""
    slices = patches.reshape(len(patches), CHANNELS, SLICES, -1)
    return bool(np.array_equal(slices[:, :, 0], slices[:, :, 1]))


def still_rows(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (n, 2 * 3 * patch^2) to float32 (1, n, 3 * patch^2): (byte - 128) / 128 of the first slice."""
    first = patches.reshape(len(patches), CHANNELS, SLICES, -1)[:, :, 0]  # (n, 3, patch^2)
    rows = first.reshape(1, len(patches), -1).astype(np.float32)
    rows -= MIDDLE
    rows /= MIDDLE
    return rows
