"""The pictures of a static graph's proof, at its size: coarse noise, and the pictures that calibrate int8 or are held out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import InvalidInput
from contract.preprocessing import ImageProcessing
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import picture_item
from export.gate.packs import pixels
from export.graph.tower import Tower
from export.integers.calibration import drawn, pictures
from export.static.grid import Grid

NUM_DRAWN, HELD_OUT = 16, 4


def noise(tower: Tower, grid: Grid) -> NDArray[np.uint8]:
    """Patches uint8 (num_patches, patch_width) of a noisy still."""
    return pixels(tower, ((1, grid.height, grid.width),), grid.num_patches)


@dataclass(frozen=True)
class GridPictures:
    """Patches uint8 (num_patches, patch_width) of pictures, resized to a grid: those that calibrate integers, and
    others, on which the gate measures. Ranges that fit the first may cut off what the others have."""

    calibrating: list[NDArray[np.uint8]]
    held_out: list[NDArray[np.uint8]]


def grid_pictures(folder: Path | None, image: ImageProcessing, card: ModelCard, grid: Grid) -> GridPictures:
    """The pictures of a folder, of which every fourth is held out, or drawn ones for None.

    Raises:
        InvalidInput: the folder does not exist, or holds fewer than four pictures.
        MediaError: one of them cannot be decoded.
    """
    height, width = grid.pixels
    if folder is None:
        found: list[Image.Image | Path] = [drawn(width, height, seed) for seed in range(NUM_DRAWN)]
    else:
        found = pictures(folder)
    if len(found) < HELD_OUT:
        raise InvalidInput(
            f"--calibration is {folder}, with {len(found)} pictures: graphs of one size need {HELD_OUT} at least, because "
            "one in four is held out to measure on"
        )
    how = replace(image, max_pixels=max(image.max_pixels, height * width))
    options = PictureOptions(resized_height=height, resized_width=width)
    patches = [picture_item(picture, how, card, options).patches for picture in found]
    held_out = patches[HELD_OUT - 1 :: HELD_OUT]
    return GridPictures([one for i, one in enumerate(patches) if (i + 1) % HELD_OUT], held_out)
