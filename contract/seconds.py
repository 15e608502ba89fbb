"""Seconds from one frame pair of a video to the next, of models whose positions follow time (ModelCard.tokens_per_second)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput

MAX_SECONDS = 3600.0


def check_seconds(
    seconds: NDArray[np.floating[Any]] | None, num_videos: int, card: ModelCard
) -> Sequence[float | None]:
    """Seconds of each video that is sent; None for each where the model's positions do not follow time.

    Raises:
        InvalidInput: they are missing, not wanted, of another number, or no time that passes.
    """
    if card.tokens_per_second is None:
        if seconds is not None:
            raise InvalidInput(
                "video_second_per_grid was sent, positions of this model do not follow time: leave it out",
                check="seconds",
            )
        return [None] * num_videos
    got = [] if seconds is None else seconds.tolist()
    if len(got) != num_videos:
        raise InvalidInput(
            f"video_second_per_grid has {len(got)} values, {num_videos} videos were sent: this model needs the seconds from "
            "one frame pair to the next of each",
            check="seconds",
        )
    if wrong := [value for value in got if not 0 < value <= MAX_SECONDS]:
        raise InvalidInput(
            f"video_second_per_grid has {wrong[0]}, seconds above 0 up to {MAX_SECONDS} are expected", check="seconds"
        )
    return got
