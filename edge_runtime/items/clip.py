"""A video between its file and its item: the frames that the model looks at, and what the caller wants of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.items.video_options import VideoOptions


@dataclass(frozen=True)
class Clip:
    """What a family makes an item of.

    Attributes:
        images: the frames, RGB; the reader decodes them while it reads them, and can read them once.
        indices: their places in the source, int64 (frames,).
        fps: frames of the source per second.
        options: what the message says about the video.
        max_pixels: the most pixels of a frame, whatever the options and the bundle allow; None sets no limit.
        rate: how many of the chosen frames make a second; None where the clip has all frames of the source.
        num_frames: frames of the source; None where the caller gave the frames themselves.
    """

    images: Iterable[Image.Image]
    indices: NDArray[np.int64]
    fps: float
    options: VideoOptions = field(default_factory=VideoOptions)
    max_pixels: int | None = None
    rate: float | None = None
    num_frames: int | None = None
