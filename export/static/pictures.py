"""The pictures of a static graph's proof, at its size: coarse noise, and the pictures that calibrate int8."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.preprocessing import ImageProcessing
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import picture_item
from export.gate.packs import pixels
from export.graph.tower import Tower
from export.integers.calibration import pictures
from export.static.grid import Grid


def noise(tower: Tower, grid: Grid) -> NDArray[np.uint8]:
    """Patches uint8 (num_patches, patch_width) of a noisy still."""
    return pixels(tower, ((1, grid.height, grid.width),), grid.num_patches)


def calibration_pictures(
    folder: Path | None, image: ImageProcessing, card: ModelCard, grid: Grid
) -> list[NDArray[np.uint8]]:
    """Patches uint8 (num_patches, patch_width) of each calibration picture, resized to the grid.

    Raises:
        InvalidInput: the folder does not exist or holds no pictures.
        MediaError: one of them cannot be decoded.
    """
    height, width = grid.pixels
    how = replace(image, max_pixels=max(image.max_pixels, height * width))
    options = PictureOptions(resized_height=height, resized_width=width)
    return [picture_item(picture, how, card, options).patches for picture in pictures(folder)]
