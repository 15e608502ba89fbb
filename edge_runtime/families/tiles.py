"""What the families that cut pictures into fixed tiles share on the device."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import BundleError, MediaError
from contract.preprocessing import VideoProcessing
from contract.tiles import Tiles
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item, resized
from edge_runtime.items.patches import to_patches
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import Pixels, check_ratio
from edge_runtime.items.video_options import VideoOptions

MARKS: tuple[str, ...] = ()  # pads alone stand for pictures and videos
SIZES = ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width")


def tiles_of(card: ModelCard) -> Tiles:
    """The card's tiles.

    Raises:
        BundleError: the card has none.
    """
    if card.tiles is None:
        raise BundleError(
            f"card.tiles of a {card.family} model is null, its tiles are expected: export the bundle again"
        )
    return card.tiles


def check_picture(image: Image.Image, options: PictureOptions | VideoOptions) -> None:
    """Refuse a picture or options that fixed tiles cannot serve.

    Raises:
        MediaError: one side of the picture is more than 200 times the other, or the options ask for a size.
    """
    check_ratio(image)
    if given := [name for name in SIZES if getattr(options, name, None) is not None]:
        raise MediaError(f"{given[0]} was given, this model cuts pictures into tiles of a fixed size: leave it out")


def item(
    pixels: Pixels,
    tiles: Tiles,
    runs: int,
    rows: int,
    arranged: tuple[str, int, int] | None = None,
    timestamps: tuple[float, ...] = (),
) -> Item:
    """The item of tiles, uint8 (n, side, side, 3); its pads stand in `runs` runs of `rows` pads."""
    patches, grid = to_patches(tiles.seen_part(pixels), tiles.patch, tiles.merge, 1)
    return Item(patches, (runs, 1, rows), timestamps, tiles_thw=grid, arranged=arranged)


def frame_pixels(images: Iterable[Image.Image], options: VideoOptions, side: int) -> Pixels:
    """Every frame squashed to a tile: uint8 (frames, side, side, 3).

    Raises:
        MediaError: as check_picture.
    """
    frames = []
    for image in images:
        check_picture(image, options)
        frames.append(resized(image, side, side))
    return np.stack(frames)


def frame_indices(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> NDArray[np.int64]:
    """The indices of every frame where neither a message nor the checkpoint says otherwise; else as many as they ask
    for, the first of each equal part. int64 (n,).

    Raises:
        MediaError: there are more frames than the bundle allows.

    The rule is `default_sample_indices_fn` of transformers' video_utils.
    """
    first, total, count = frames_chosen(num_frames, fps, how, options)
    return first + np.arange(count) * total // count


def frames_chosen(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> tuple[int, int, int]:
    """The first frame of the part between video_start and video_end, how many frames the part has, and how many of them
    the model looks at.

    Raises:
        MediaError: there are more frames than the bundle allows.
    """
    first, last = options.part(num_frames, fps)
    total = last - first + 1
    count = options.count(total, fps, how)
    if options.nframes is options.fps is how.num_frames is how.fps is None and total > count:
        raise MediaError(f"the video has {total} frames, up to {count} are allowed: give nframes or fps")
    return first, total, min(count, total)


def mode(num_pictures: int) -> str:
    """The family cuts every picture alike; see edge_runtime.families.Family."""
    return ""


def write(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """The text as it is, one pad for each item, nothing around it; see edge_runtime.families.Family."""
    return text


def arrange(rows: NDArray[np.float32], items: Sequence[Item], bundle: Bundle) -> NDArray[np.float32]:
    """The tower's rows as they are; see edge_runtime.families.Family."""
    return rows
