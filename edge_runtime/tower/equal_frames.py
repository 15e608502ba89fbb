"""Frames of a video that equal the frame before, as in a screen recording or from a camera that stands still.

Attention never crosses a frame, so equal patches have equal rows: the tower computes them once, and the rows are exact.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime.items.item import Item

Distinct = tuple[Item, NDArray[np.intp] | None]


def distinct_frames(item: Item) -> Distinct:
    """An item without the frames that equal the one before them, and for each frame its place among the distinct ones,
    int64 (frames,); the item itself and None where all frames differ."""
    number, height, width = item.tower_thw
    frames = item.patches.reshape(number, -1)
    is_new = np.array([i == 0 or not np.array_equal(frames[i], frames[i - 1]) for i in range(number)])
    if is_new.all():
        return item, None
    patches = frames[is_new].reshape(-1, item.patches.shape[1])
    return replace(item, patches=patches, tiles_thw=(int(is_new.sum()), height, width)), np.cumsum(is_new) - 1


def repeated_rows(distinct: Sequence[Distinct], num_rows: int) -> NDArray[np.intp]:
    """For each row of the whole items its place among the tower's num_rows rows of the distinct frames."""
    num_patches = sum(len(item.patches) for item, _ in distinct)
    places, start = list[NDArray[np.intp]](), 0
    for item, source in distinct:
        number, height, width = item.tower_thw
        each = height * width * num_rows // num_patches  # rows of a frame: a tower merges as many patches everywhere
        rows = start + np.arange(number * each).reshape(number, each)
        places.append((rows if source is None else rows[source]).ravel())
        start += number * each
    return np.concatenate(places)
