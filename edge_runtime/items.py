"""Pictures and videos made ready for the tower: resized, normalised, cut into patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.media import Picture, load_picture
from edge_runtime.patches import to_patches
from edge_runtime.resize import image_size, video_size


@dataclass(frozen=True)
class Item:
    """One picture or video.

    Attributes:
        pixel_values: float32 (t * h * w, 3 * temporal_patch * patch^2).
        grid_thw: frames (pairs, for a video), height, width in patches.
        timestamps: seconds of each temporal patch of a video; empty for a picture.
    """

    pixel_values: NDArray[np.float32]
    grid_thw: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()

    @property
    def is_video(self) -> bool:
        return bool(self.timestamps)


def _pixels(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _patches(
    frames: NDArray[np.uint8], how: ImageProcessing, card: ModelCard
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    return to_patches(frames, mean, std, card.patch_size, card.merge_size, card.temporal_patch_size)


def picture_item(source: Picture, how: ImageProcessing, card: ModelCard) -> Item:
    """A picture, resized with Pillow's bicubic filter as transformers' PIL backend does.

    Raises:
        MediaError: it cannot be decoded, or its aspect ratio is above 200.
    """
    image = load_picture(source)
    factor = card.patch_size * card.merge_size
    height, width = image_size(image.height, image.width, factor, how.min_pixels, how.max_pixels)
    return Item(*_patches(_pixels(image, height, width)[None], how, card))


def frames_item(frames: Sequence[Picture], how: VideoProcessing, card: ModelCard, sample_fps: float = 2.0) -> Item:
    """A video given as frames already sampled at `sample_fps` frames per second.

    Raises:
        MediaError: no frames, too many, frames of different size, or a frame that cannot be decoded.
    """
    if not 1 <= len(frames) <= how.max_frames:
        raise MediaError(f"video has {len(frames)} frames, 1 to {how.max_frames} are allowed: sample fewer")
    if not sample_fps > 0:
        raise MediaError(f"sample_fps is {sample_fps}, a positive number is expected")
    images = [load_picture(frame) for frame in frames]
    if len(sizes := {image.size for image in images}) > 1:
        raise MediaError(f"video frames have sizes {sorted(sizes)}, one size is expected")
    depth = card.temporal_patch_size
    indices = [*range(len(images)), *[len(images) - 1] * (-len(images) % depth)]
    height, width = video_size(
        max(len(images), depth),
        images[0].height,
        images[0].width,
        card.patch_size * card.merge_size,
        depth,
        how.min_pixels,
        how.max_pixels,
    )
    pixels = np.stack([_pixels(image, height, width) for image in images])
    seconds = [index / sample_fps for index in indices]
    timestamps = tuple((seconds[i] + seconds[i + depth - 1]) / 2 for i in range(0, len(seconds), depth))
    return Item(*_patches(pixels, how, card), timestamps)
