"""Seconds from one frame pair of a video to the next, for models whose positions follow time.

ModelCard.tokens_per_second says which models these are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.errors import InvalidInput

MAX_SECONDS = 3600.0
# Engines hold a table of angles for some times the model's context; vLLM 0.32 for four. The answer takes one of them.
MAX_CONTEXTS = 3


def check_seconds(
    seconds: NDArray[np.floating[Any]] | None, num_videos: int, card: ModelCard
) -> Sequence[float | None]:
    """Seconds of each video that the client sent; None for each where the model's positions do not follow time.

    Args:
        seconds: float (num_videos,), as the client sent it; None where it sent none.

    Raises:
        InvalidInput: the seconds are missing or not wanted, there are not as many as videos, or one is not above 0 and
            at most MAX_SECONDS.
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


def check_last_position(positions: NDArray[np.int64], card: ModelCard) -> None:
    """Refuse seconds that lead further than an engine's table of angles.

    Args:
        positions: int64 (axes, S), those of the prompt's tokens.

    Raises:
        InvalidInput: a position is not below MAX_CONTEXTS times the model's context.
    """
    last, most = int(positions.max()), MAX_CONTEXTS * card.max_position_embeddings
    if last >= most:
        raise InvalidInput(
            f"video_second_per_grid leads to position {last}, up to {most - 1} is allowed: send a shorter video, or "
            "frames that are less far apart",
            check="seconds",
        )
