"""Qwen3-VL on the device: pictures and clips on a grid of merge blocks, a timestamp before each pair of frames."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.bundle import Bundle
from edge_runtime.families.pads import wrong_pads
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item, resized
from edge_runtime.items.patches import to_patches
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions, timestamps

MARKS: tuple[str, ...] = ()  # pads alone stand for pictures and videos
FrameSize = Callable[
    [int, int, int, VideoProcessing, ModelCard, VideoOptions, int | None], tuple[int, int]
]  # a family's frame_size


def mode(num_pictures: int) -> str:
    """This family cuts every picture alike; see edge_runtime.families.Family."""
    return ""


def indices(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> NDArray[np.int64]:
    """See edge_runtime.families.Family."""
    return options.indices(num_frames, fps, how)


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """One frame; see edge_runtime.families.Family."""
    height, width = options.size(image.height, image.width, card.patch_size * card.merge_size, how)
    return grid_item(resized(image, height, width, how.resample)[None], card)


def frame_size(
    num_frames: int,
    height: int,
    width: int,
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions,
    max_pixels: int | None,
) -> tuple[int, int]:
    """The bundle's budget counts all frames together; see edge_runtime.families.Family."""
    factor = card.patch_size * card.merge_size
    return options.size(num_frames, height, width, factor, card.temporal_patch_size, how, max_pixels)


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """Frames, resized as they come, with the time of each temporal patch; see edge_runtime.families.Family."""
    frames = resized_frames(clip, frame_size, how, card)
    return grid_item(frames, card, timestamps(clip.indices, clip.fps, card.temporal_patch_size))


def resized_frames(clip: Clip, size_of: FrameSize, how: VideoProcessing, card: ModelCard) -> NDArray[np.uint8]:
    """Frames of one size, uint8 (frames, height, width, 3); `size_of` is a family's frame_size.

    Raises:
        MediaError: the frames differ in size.
    """
    pixels: list[NDArray[np.uint8]] = []
    original = size = (0, 0)
    for image in clip.images:
        if not pixels:
            original = image.size
            size = size_of(len(clip.indices), image.height, image.width, how, card, clip.options, clip.max_pixels)
        elif image.size != original and clip.options.resized_height is None:
            raise MediaError(
                f"video frames have sizes {original} and {image.size}, one size is expected: give resized_height and "
                "resized_width for all"
            )
        pixels.append(resized(image, *size, how.resample))
    return np.stack(pixels)


def grid_item(
    frames: NDArray[np.uint8], card: ModelCard, times: tuple[float, ...] = (), seconds: float | None = None
) -> Item:
    """The item of frames, uint8 (n, height, width, 3); a picture is one frame without times.

    Args:
        times: the seconds of each temporal patch of a video.
        seconds: the time from one temporal patch to the next, where the family's positions follow it.
    """
    patches, grid_thw = to_patches(frames, card.patch_size, card.merge_size, card.temporal_patch_size)
    return Item(patches, grid_thw, times, seconds=seconds)


def write(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """Write each video as `<0.2 seconds>` + one framed pad per temporal patch; see edge_runtime.families.Family.

    transformers from 5.10 on replaces only the pad and so leaves the template's own vision_start and vision_end around
    the video; older versions replace all three. The bundle says which version it follows.
    """
    card = bundle.manifest.card
    tokens = (card.video_token_id, card.vision_start_token_id, card.vision_end_token_id)
    pad, start, end = (bundle.token(token) for token in tokens if token is not None)
    whole = pad if bundle.manifest.has_outer_video_wrapper else start + pad + end
    videos = [item for item in items if item.is_video]
    pieces = text.split(whole)
    if len(pieces) != len(videos) + 1:
        raise wrong_pads(len(pieces) - 1, len(videos), "videos")
    expanded = pieces[0]
    for video, rest in zip(videos, pieces[1:], strict=True):
        expanded += "".join(f"<{second:.1f} seconds>{start}{pad}{end}" for second in video.timestamps) + rest
    return expanded


def arrange(rows: NDArray[np.float32], items: Sequence[Item], bundle: Bundle) -> NDArray[np.float32]:
    """The tower's rows as they are; see edge_runtime.families.Family."""
    return rows
