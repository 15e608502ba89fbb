"""A picture or video, ready for the tower: its patches, its grid and its times."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.grids import item_rows
from contract.preprocessing import BICUBIC


@dataclass(frozen=True)
class Item:
    """One picture or video.

    Attributes:
        patches: uint8 (t * h * w, 3 * temporal_patch * patch^2), where t, h, w is tower_thw.
        grid_thw: temporal patches, height and width, in patches, on which the rows of the prompt stand.
        timestamps: seconds of each temporal patch of a video; empty for a picture.
        duration: seconds of the whole video, where the prompt says them.
        has_picture_pads: whether this is a video with the pads of pictures; it travels as a picture.
        tiles_thw: the grid that the tower gets, where the rows of the prompt stand on another; None where both agree.
        arranged: how the tower's rows become those of the prompt, or how the prompt names them, where the family has
            several ways: a name, and the two numbers that it follows from, such as height and width in pixels.
        seconds: the time from one temporal patch of a video to the next, where the family's positions follow it.
    """

    patches: NDArray[np.uint8]
    grid_thw: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()
    tiles_thw: tuple[int, int, int] | None = None
    arranged: tuple[str, int, int] | None = None
    seconds: float | None = None
    duration: int = 0
    has_picture_pads: bool = False

    @property
    def tower_thw(self) -> tuple[int, int, int]:
        """The grid of the patches: frames or tiles, height, width."""
        return self.tiles_thw or self.grid_thw

    @property
    def is_video(self) -> bool:
        """Whether the item travels as a video."""
        return bool(self.timestamps) and not self.has_picture_pads

    def with_pads_of_pictures(self, duration: int = 0) -> "Item":
        """The same video with pads of pictures; `duration` is what the prompt says of it, in seconds."""
        return replace(self, duration=duration, has_picture_pads=True)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the pixels, 32 bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.patches).data).digest()

    def num_rows(self, card: ModelCard) -> int:
        """How many embedding rows the item takes in the prompt, by the rule of the model's family."""
        return item_rows(self.grid_thw, card)


def resized(image: Image.Image, height: int, width: int, resample: int = BICUBIC) -> NDArray[np.uint8]:
    """The image as uint8 (height, width, 3), resized by Pillow's filter `resample` as in transformers' PIL backend."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling(resample))
    return np.asarray(image)
