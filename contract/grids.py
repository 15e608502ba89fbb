"""Checks the grids of pictures and videos, their number first, then their sides, before anybody computes with them."""

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.families import find
from contract.limits import Limits

MAX_SIDE = 1 << 15  # patches; h * w * t then stays far inside int64


def check_grids(name: str, grid: NDArray[np.int64] | None, card: ModelCard) -> NDArray[np.int64]:
    """A grid tensor int64 (k, 3) in patches as the client sent it, or one of 0 rows for None.

    Args:
        name: `image_grid_thw` or `video_grid_thw`.

    Raises:
        InvalidInput: a side is not positive, too large, or no multiple of the merge size; a picture has several frames;
            or the model has no pads of videos.
    """
    if grid is None:
        return np.zeros((0, 3), np.int64)
    if len(grid) and name == "video_grid_thw" and card.video_token_id is None:
        raise InvalidInput(
            "video_grid_thw was sent, this model has no pads of videos: send frames as pictures", check="pads"
        )
    is_grid = find(card.family).LAYOUT == "grids"
    for item, (t, h, w) in enumerate(grid.tolist()):  # check_items has bounded their number
        if not all(1 <= side <= MAX_SIDE for side in (t, h, w)):
            raise InvalidInput(
                f"{name}[{item}] is {[t, h, w]}, sides from 1 to {MAX_SIDE} are allowed", check="grid-side"
            )
        if h % card.merge_size or w % card.merge_size:
            raise InvalidInput(
                f"{name}[{item}] is {[t, h, w]}, height and width must be multiples of {card.merge_size}",
                check="grid-even",
            )
        if name == "image_grid_thw" and t != 1 and is_grid:
            raise InvalidInput(
                f"{name}[{item}] is {[t, h, w]}, a picture has t = 1; send videos as video_grid_thw",
                check="grid-frames",
            )
    return grid


def check_items(
    image_grid_thw: NDArray[np.int64] | None, video_grid_thw: NDArray[np.int64] | None, card: ModelCard, limits: Limits
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both grid tensors, int64 (k, 3), after every check. Their number comes first: the rest looks at every item.

    Raises:
        InvalidInput: the request has too many items, or a grid that check_grids refuses.
    """
    items = sum(len(grid) for grid in (image_grid_thw, video_grid_thw) if grid is not None and grid.ndim)
    if items > limits.max_items:
        raise InvalidInput(
            f"the request has {items} pictures and videos, {limits.max_items} are allowed", check="max-items"
        )
    return check_grids("image_grid_thw", image_grid_thw, card), check_grids("video_grid_thw", video_grid_thw, card)


def runs(grid_thw: tuple[int, int, int], card: ModelCard) -> tuple[int, int]:
    """How the pads of an item stand in the prompt: the number of runs, and the pads of each run."""
    return find(card.family).runs(grid_thw, card)


def item_rows(grid_thw: tuple[int, int, int], card: ModelCard) -> int:
    """Embedding rows of one item."""
    number, length = runs(grid_thw, card)
    return number * length


def num_rows(grid: NDArray[np.int64], card: ModelCard) -> int:
    """Embedding rows of all items of a grid tensor (k, 3)."""
    return sum(item_rows((t, h, w), card) for t, h, w in grid.tolist())
