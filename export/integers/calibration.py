"""Pictures on which the export measures the loudness of hidden channels before it quantises a tower.

The user passes real pictures, or the export draws some: smooth surfaces, edges, fine texture and noise make the
channels of a vision tower loud. The export shrinks each picture first, because a channel's peak needs variety and not
resolution.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from contract.card import ModelCard
from contract.errors import InvalidInput, MediaError
from contract.preprocessing import ImageProcessing
from edge_runtime.items.preparation import picture_item

MAX_PICTURES = 16  # so many of a folder, in the order of their names
MAX_PIXELS = 384 * 384
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DRAWN_SIZES = ((256, 256), (384, 256), (320, 448))

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def pictures(folder: Path | None) -> list[Image.Image | Path]:
    """The paths of the first MAX_PICTURES pictures of `folder`, or drawn pictures for None.

    Raises:
        InvalidInput: the folder does not exist or holds no pictures.
    """
    if folder is None:
        return [drawn(width, height, seed) for seed, (width, height) in enumerate(DRAWN_SIZES)]
    return list(pictures_of(folder, "--calibration")[:MAX_PICTURES])


def pictures_of(folder: Path, option: str) -> list[Path]:
    """The pictures of a folder in the order of their names.

    Raises:
        InvalidInput: the folder does not exist or holds no pictures; the message names `option`.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{option} is {folder}, which is no folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InvalidInput(f"{option} is {folder}, a folder without pictures ({', '.join(SUFFIXES)})")
    return found


def batches(folder: Path | None, image: ImageProcessing, card: ModelCard) -> Iterator[Batch]:
    """Patches uint8 (num_patches, patch_width) and grid int64 (1, 3) of each picture.

    Raises:
        InvalidInput: the folder does not exist or holds no pictures, or nobody can use one of them.
    """
    smaller = replace(image, max_pixels=max(image.min_pixels, min(image.max_pixels, MAX_PIXELS)))
    for picture in pictures(folder):
        try:
            item = picture_item(picture, smaller, card)
        except MediaError as error:
            raise InvalidInput(f"--calibration: {error}") from error
        yield item.patches, np.array([item.tower_thw], np.int64)


def describe(folder: Path | None, used: list[Batch]) -> dict[str, Any]:
    """What the manifest says of the pictures: their source, their number and the SHA-256 over all grids and patches."""
    digest = hashlib.sha256()
    for patches, grid_thw in used:
        digest.update(grid_thw.data)
        digest.update(patches.data)
    source = "drawn" if folder is None else "folder"
    return {"source": source, "pictures": len(used), "sha256": digest.hexdigest()}


def drawn(width: int, height: int, seed: int) -> Image.Image:
    """A colour gradient under shapes, stripes and letters, with grain."""
    rng = np.random.default_rng(seed)
    across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    corners = rng.uniform(0, 255, (4, 3))
    values = (corners[0] * (1 - across) + corners[1] * across) * (1 - down)
    values += (corners[2] * (1 - across) + corners[3] * across) * down  # (height, width, 3)
    picture = Image.fromarray(values.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for number in range(14):
        left, top, side = (int(v) for v in rng.uniform(0, 1, 3) * (width, height, width / 3))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        box = (left, top, left + side + 2, top + side + 2)
        (draw.ellipse, draw.rectangle)[number % 2](box, fill=colour)
        draw.line((left, 0, width - left, height), fill=colour[::-1], width=1 + number % 4)
        draw.text((top % width, left % height), f"{number * 7919}", fill=(0, 0, 0))
    draw.rectangle((0, 0, width // 6, height // 6), fill=(255, 255, 255))
    draw.rectangle((width - width // 6, 0, width, height // 6), fill=(0, 0, 0))
    grain = np.asarray(picture).astype(np.float32)
    grain[height // 2 :] += rng.normal(0, 24, grain[height // 2 :].shape)
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))
