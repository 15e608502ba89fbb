"""A picture or video made ready for the tower: cut into patches, with its grid and times."""

import hashlib
from dataclasses import dataclass
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
        patches: uint8 (t * h * w, 3 * temporal_patch * patch^2).
        grid_thw: frames (pairs, for a video), height, width in patches.
        timestamps: seconds of each temporal patch of a video; empty for a picture.
        tiles_thw: the grid that the tower gets, where the rows of the prompt stand on another.
        arranged: how the tower's rows become those of the prompt, where the family has several ways: its name and, if
            rows follow from it, the height and width of the picture in pixels.
        seconds: from one temporal patch of a video to the next, where the family's positions follow it.
    """

    patches: NDArray[np.uint8]
    grid_thw: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()
    tiles_thw: tuple[int, int, int] | None = None
    arranged: tuple[str, int, int] | None = None
    seconds: float | None = None

    @property
    def tower_thw(self) -> tuple[int, int, int]:
        """The grid of the patches: frames or tiles, height, width."""
        return self.tiles_thw or self.grid_thw

    @property
    def is_video(self) -> bool:
        return bool(self.timestamps)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.patches).data).digest()

    def num_rows(self, card: ModelCard) -> int:
        """Embedding rows, by the rule of the model's family."""
        return item_rows(self.grid_thw, card)


def resized(image: Image.Image, height: int, width: int, resample: int = BICUBIC) -> NDArray[np.uint8]:
    """uint8 (height, width, 3), by Pillow's filter of this number as transformers' PIL backend resizes."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling(resample))
    return np.asarray(image)
