"""Makes grids of what clients send for families without grids: the number of rows of each item."""

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.families import find
from contract.grids import MAX_SIDE

ROW_COUNTS = {"image_grid_thw": "image_rows", "video_grid_thw": "video_rows"}


def grids_or_rows(
    name: str, grid: NDArray[np.int64] | None, rows: NDArray[np.int64] | None, card: ModelCard
) -> NDArray[np.int64] | None:
    """The grids int64 (k, 3) of the items of one kind, unchecked; None where the client sent none.

    Args:
        name: the name of the grids, a key of ROW_COUNTS.
        grid: int64 (k, 3) as the client sent it.
        rows: int64 (k,), the rows of each item; an item is one run of pads, a grid (1, 1, rows) with merge size 1.

    Raises:
        InvalidInput: the model's rows stand on grids, the client sent both, or a count is no number of rows.
    """
    if rows is None:
        return grid
    count = ROW_COUNTS[name]
    if find(card.family).LAYOUT != "rows":
        raise InvalidInput(
            f"{count} was sent, the rows of a {card.family} model stand on a grid in patches: send {name}",
            check="rows-layout",
        )
    if grid is not None:
        raise InvalidInput(f"{count} and {name} are both given: send one of them", check="rows-or-grid")
    if (wrong := np.flatnonzero((rows < 1) | (rows > MAX_SIDE))).size:
        raise InvalidInput(
            f"{count}[{wrong[0]}] is {rows[wrong[0]]}, numbers of rows from 1 to {MAX_SIDE} are allowed",
            check="rows-count",
        )
    return np.stack([np.ones_like(rows), np.ones_like(rows), rows], axis=1)  # (k, 3)
