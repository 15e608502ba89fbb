"""One pad token per picture or frame becomes one pad token per embedding row; both machines do it the same way.

Works on ids: a pad token is special, so the tokenizer never joins it with its neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput


def expand_pads(
    input_ids: NDArray[np.int64],
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    card: ModelCard,
) -> NDArray[np.int64]:
    """Repeat every pad token h * w / merge_size^2 times.

    Args:
        input_ids: int64 (tokens,) with one image pad per picture and one video pad per frame pair of a video.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches.

    Raises:
        InvalidInput: the number of pads is not that of the grids' frames.
    """
    counts = np.ones(len(input_ids), np.int64)
    kinds = (
        ("image", card.image_token_id, image_grid_thw),
        ("video", card.video_token_id, video_grid_thw),
    )
    for kind, token, grid in kinds:
        places = np.flatnonzero(input_ids == token)
        rows = np.repeat(grid[:, 1] * grid[:, 2] // card.merge_size**2, grid[:, 0])  # one entry a frame
        if places.size != rows.size:
            raise InvalidInput(
                f"the prompt has {places.size} {kind} pads, {kind}_grid_thw has {rows.size} frames: one each is expected"
            )
        counts[places] = rows
    return np.repeat(input_ids, counts)
