"""The calls of the tower for some items, each within a memory budget.

Attention never crosses a frame, so `batches` may cut a long video between temporal patches; the parts' rows, one behind
the other, are those of one call.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.items.item import Item

Patches = tuple[NDArray[np.uint8], tuple[int, int, int]]  # patches (count, patch_width) and their grid


def _patches_of(items: Sequence[Item], max_patches: int) -> Iterator[Patches]:
    for item in items:
        frames, height, width = item.tower_thw
        step = max(1, max_patches // (height * width))
        for first in range(0, frames, step):
            count = min(step, frames - first)
            rows = slice(first * height * width, (first + count) * height * width)
            yield item.patches[rows], (count, height, width)


def batches(items: Sequence[Item], max_patches: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The inputs of each call in the order of the items: patches uint8 (p, width of a patch), grid_thw int64 (k, 3).

    Args:
        max_patches: the most patches of one call; a single frame with more has its own call.
    """
    batch: list[Patches] = []
    held = 0
    for piece in _patches_of(items, max_patches):
        if batch and held + len(piece[0]) > max_patches:
            yield _joined(batch)
            batch, held = [], 0
        batch.append(piece)
        held += len(piece[0])
    if batch:
        yield _joined(batch)


def _joined(batch: list[Patches]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    patches = batch[0][0] if len(batch) == 1 else np.concatenate([patches for patches, _ in batch])
    return patches, np.array([grid for _, grid in batch], np.int64)
