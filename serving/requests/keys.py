"""vision_keys of a request: which items are held here, which come along, and the grids of both together.

The client sends grids by kind, and none of held items, whose grids the store knows; the prompt's pads say which kind
comes next.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput
from contract.items import ItemTensors
from serving.requests.store import ReuseStore

Held = Sequence[ItemTensors | None]  # per item in prompt order, None where it was sent
Grid = tuple[int, int, int]


def held_items(keys: Sequence[str], num_sent: int, store: ReuseStore) -> Held:
    """The item that each key names; None for an empty key.

    Raises:
        InvalidInput: there are not as many empty keys as items were sent.
        NotFound: the store does not hold a key's item.
    """
    num_empty = sum(not key for key in keys)
    if num_empty != num_sent:
        raise InvalidInput(
            f"vision_keys has {num_empty} empty entries, the grids have {num_sent} items: an empty entry is expected for "
            "each item whose tensors come along",
            check="key-count",
        )
    return [store.find(key) if key else None for key in keys]


def all_grids(
    is_video_pad: NDArray[np.bool_],
    held: Held,
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    num_pads: Callable[[bool, Grid, ItemTensors | None], int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Grids of all pictures and of all videos, each int64 (k, 3), in prompt order.

    Args:
        is_video_pad: (pads,) whether each pad of the prompt is a video's.
        image_grid_thw, video_grid_thw: int64 (k, 3), the grids of the items that the client sent.
        num_pads: how many pads of this prompt an item has, by is_video, grid and what is held of it.

    Raises:
        InvalidInput: the prompt has the other kind's pads in the place of an item, or none, or no grid is left for it.
    """
    sent = {False: iter(image_grid_thw.tolist()), True: iter(video_grid_thw.tolist())}
    found: dict[bool, list[Grid]] = {False: [], True: []}
    start = 0
    for place, item in enumerate(held):
        if start >= len(is_video_pad):
            raise InvalidInput(
                f"vision_keys has {len(held)} entries, the prompt has pads for {place} items", check="key-pads"
            )
        is_video = bool(is_video_pad[start])
        if item is not None and item.is_video != is_video:
            names = ("picture", "video")
            raise InvalidInput(
                f"vision_keys[{place}] names a {names[item.is_video]}, the prompt has the pads of a {names[is_video]} there",
                check="key-kind",
            )
        grid = item.grid_thw if item is not None else next(sent[is_video], None)
        if grid is None:
            name = "video_grid_thw" if is_video else "image_grid_thw"
            raise InvalidInput(f"vision_keys[{place}] is empty, and {name} has no grid left for it", check="key-grid")
        found[is_video].append(grid)
        start += num_pads(is_video, grid, item)
    images, videos = (np.array(found[kind], np.int64).reshape(-1, 3) for kind in (False, True))
    return images, videos
