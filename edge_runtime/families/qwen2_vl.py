"""Qwen2-VL on the device: pictures on a grid of merge blocks, the frames of a video in one run of pads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.preprocessing import VideoProcessing
from edge_runtime.bundle import Bundle
from edge_runtime.families.pads import wrong_pads
from edge_runtime.families.qwen3_vl import MARKS, arrange, grid_item, mode, picture, resized_frames
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.resize import image_size
from edge_runtime.items.video_options import VideoOptions, timestamps

__all__ = ["MARKS", "arrange", "clip", "frame_size", "indices", "mode", "picture", "write"]

PAIR = 2  # frames; the number of frames is a multiple of it, or 1


def indices(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> NDArray[np.int64]:
    """The choice is `sample_frames` of transformers' Qwen2-VL video processor, within the part that the options name.
    transformers cuts float32 numbers off, so its places depend on how a processor rounds a product; this call computes
    in whole numbers. See edge_runtime.families.Family."""
    first, last = options.part(num_frames, fps)
    total = last - first + 1
    count = options.count(total, fps, how)
    is_number = options.nframes is not None or how.num_frames is not None
    whole = (
        round(count / PAIR) if is_number else count // PAIR
    )  # as transformers rounds a number, and what a rate gives
    count = max(1, min(whole, total // PAIR) * PAIR)
    return first + np.arange(count, dtype=np.int64) * total // count


def frame_size(
    num_frames: int,
    height: int,
    width: int,
    how: VideoProcessing,
    card: ModelCard,
    options: VideoOptions,
    max_pixels: int | None,
) -> tuple[int, int]:
    """The bundle's budget counts one frame here; where the bundle bounds the tokens of a video, a frame also stays
    within its share of them. See edge_runtime.families.Family."""
    factor, depth = card.patch_size * card.merge_size, card.temporal_patch_size
    if not options.is_bundles_size:
        return options.size(num_frames, height, width, factor, depth, how, max_pixels)
    most = how.max_pixels
    if how.max_video_tokens is not None:
        share = int(how.max_video_tokens * factor**2 * 0.9) * depth // num_frames
        most = max(min(most, share), int(how.min_pixels * 1.05))
    if max_pixels is not None:
        most = min(most, max_pixels)
    return image_size(height, width, factor, min(how.min_pixels, most), most)


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """Frames, resized as they come, and the seconds between two temporal patches; see edge_runtime.families.Family."""
    frames = resized_frames(clip, frame_size, how, card)
    depth = card.temporal_patch_size
    # the float32 that the server receives, so that both sides name the rows alike
    seconds = None if card.tokens_per_second is None else float(np.float32(depth / (clip.rate or clip.fps)))
    return grid_item(frames, card, timestamps(clip.indices, clip.fps, depth), seconds)


def write(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """The text as it is, one pad for each item; see edge_runtime.families.Family."""
    card = bundle.manifest.card
    for token, is_video, what in ((card.image_token_id, False, "pictures"), (card.video_token_id, True, "videos")):
        number = sum(item.is_video == is_video for item in items)
        if token is not None and (count := text.count(bundle.token(token))) != number:
            raise wrong_pads(count, number, what)
    return text
