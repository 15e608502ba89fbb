"""Pictures and videos made ready for the tower: resized and cut into patches."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.items.patches import to_patches
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions, timestamps
from edge_runtime.media.access import frame_files
from edge_runtime.media.picture import Picture, load_picture
from edge_runtime.media.source import Source, find

Video = Source | Sequence[Picture] | NDArray[np.uint8]
Progress = Callable[[int, int], None]
DEFAULTS = VideoOptions()
PICTURE_DEFAULTS = PictureOptions()


@dataclass(frozen=True)
class Item:
    """One picture or video.

    Attributes:
        patches: uint8 (t * h * w, 3 * temporal_patch * patch^2).
        grid_thw: frames (pairs, for a video), height, width in patches.
        timestamps: seconds of each temporal patch of a video; empty for a picture.
    """

    patches: NDArray[np.uint8]
    grid_thw: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()

    @property
    def is_video(self) -> bool:
        return bool(self.timestamps)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.patches).data).digest()

    def num_rows(self, merge_size: int) -> int:
        """Embedding rows: one for merge_size x merge_size patches of a frame."""
        frames, height, width = self.grid_thw
        return frames * height * width // merge_size**2


def _pixels(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _patches(frames: NDArray[np.uint8], card: ModelCard) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    return to_patches(frames, card.patch_size, card.merge_size, card.temporal_patch_size)


def picture_item(
    source: Picture, how: ImageProcessing, card: ModelCard, options: PictureOptions = PICTURE_DEFAULTS
) -> Item:
    """A picture, resized with Pillow's bicubic filter as transformers' PIL backend does.

    Raises:
        MediaError: it cannot be decoded, its aspect ratio is above 200, or the options contradict each other.
    """
    image = load_picture(source)
    factor = card.patch_size * card.merge_size
    height, width = options.size(image.height, image.width, factor, how)
    return Item(*_patches(_pixels(image, height, width)[None], card))


def _clip(
    images: Iterable[Image.Image],
    indices: NDArray[np.int64],
    fps: float,
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions,
    max_pixels: int | None,
) -> Item:
    """Frames, resized as they come, with the time of each temporal patch."""
    depth, factor = card.temporal_patch_size, card.patch_size * card.merge_size
    pixels: list[NDArray[np.uint8]] = []
    original = size = (0, 0)
    for image in images:
        if not pixels:
            original = image.size
            size = options.size(len(indices), image.height, image.width, factor, depth, how, max_pixels)
        elif image.size != original and options.resized_height is None:
            raise MediaError(
                f"video frames have sizes {original} and {image.size}, one size is expected: give resized_height and "
                "resized_width for all"
            )
        pixels.append(_pixels(image, *size))
    return Item(*_patches(np.stack(pixels), card), timestamps(indices, fps, depth))


def _counted(images: Iterable[Image.Image], total: int, progress: Progress | None) -> Iterator[Image.Image]:
    for done, image in enumerate(images, 1):
        yield image
        if progress is not None:
            progress(done, total)


def frames_item(
    frames: Sequence[Picture],
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions = DEFAULTS,
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> Item:
    """A video given as frames already sampled at `options.sample_fps` frames per second (2 where it is silent).

    Args:
        max_pixels: most pixels of a frame, whatever the options and the bundle allow.
        progress: called with the number of frames read and the number wanted.

    Raises:
        MediaError: no frames, too many, frames of different size, or a frame that cannot be decoded.
    """
    if not 1 <= len(frames) <= how.max_frames:
        raise MediaError(f"video has {len(frames)} frames, 1 to {how.max_frames} are allowed: sample fewer")
    fps = options.raw_fps or options.sample_fps or 2.0
    images = _counted(map(load_picture, frames), len(frames), progress)
    return _clip(images, np.arange(len(frames)), fps, how, card, options, max_pixels)


def video_item(
    source: Video,
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions = DEFAULTS,
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> Item:
    """A video from a file, its bytes, a list of frames, or a folder of frames (sorted by name).

    Args:
        max_pixels: most pixels of a frame, whatever the options and the bundle allow.
        progress: called with the number of frames read and the number wanted.

    Raises:
        MediaError: it cannot be decoded, or the options ask for frames it does not have.
        MissingExtra: a file, and PyAV is not installed.
    """
    if isinstance(source, np.ndarray):  # (frames, height, width, 3 or 4)
        source = list(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return frames_item(source, how, card, options, max_pixels, progress)
    if not isinstance(source, str | bytes | os.PathLike):
        raise MediaError(f"video is {type(source).__name__}, a path, bytes or a list of frames is expected")
    found = find(source, "video")
    if isinstance(found, Path) and found.is_dir():
        return frames_item(frame_files(found), how, card, options, max_pixels, progress)
    from edge_runtime.media.video_file import VideoFile  # needs the extra `video`

    with VideoFile(found) as video:
        indices = options.indices(video.num_frames, video.fps, how)
        images = _counted(video.frames(indices), len(indices), progress)
        return _clip(images, indices, video.fps, how, card, options, max_pixels)
