"""SmolVLM on the device: the prompt names tiles by row and column, the whole picture comes last, a frame is one tile.

Pictures and videos have the same pad, so a video travels as a picture whose pads stand in one run for each frame.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.errors import MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.bundle import Bundle
from edge_runtime.families.pads import wrong_pads
from edge_runtime.families.tiles import arrange, check_picture, item, mode, tiles_of
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import longest_edge, whole_in_a_tile
from edge_runtime.items.video_options import VideoOptions

__all__ = ["MARKS", "arrange", "clip", "indices", "mode", "picture", "write"]

VIDEO, AROUND, WHOLE, TILES = "<video>", "<fake_token_around_image>", "<global-img>", "tiles"
MARKS = (VIDEO,)
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SKIPPED_S = 1  # seconds that the choice skips at both ends of a long video


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """One run of pads for each tile; see edge_runtime.families.Family."""
    check_picture(image, options)
    tiles = tiles_of(card)
    pixels, rows, columns = longest_edge(image, tiles, how.resample)
    return item(pixels, tiles, len(pixels), tiles.num_rows, (TILES, rows, columns))


def indices(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> NDArray[np.int64]:
    """The checkpoint's number of frames a second, up to its most; see edge_runtime.families.Family.

    The rule is `sample_frames` of transformers' SmolVLM video processor; where a message has options, they choose as
    for Qwen3-VL.
    """
    if options != VideoOptions() or how.fps is None:
        return options.indices(num_frames, fps, how)
    duration = num_frames / fps
    count = max(1, min(round(how.fps * duration), how.max_frames))
    first, last = 0, num_frames - 1
    if duration - 2 * SKIPPED_S > how.max_frames * how.fps:
        first, last = int(SKIPPED_S * fps), min(int(num_frames - SKIPPED_S * fps), last)
    if first >= last:
        first, last = 0, num_frames - 1
    return np.unique(np.linspace(first, last, count, dtype=np.int64))


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """One run of pads for each frame; see edge_runtime.families.Family."""
    tiles, frames = tiles_of(card), list[NDArray[np.uint8]]()
    for image in clip.images:
        check_picture(image, clip.options)
        frames.append(whole_in_a_tile(image, tiles, tiles.frame_longest, how.resample))
    times = tuple(float(index) / clip.fps for index in clip.indices)
    made = item(np.stack(frames), tiles, len(frames), tiles.num_rows, timestamps=times)
    return made.with_pads_of_pictures(int(times[-1]) if clip.num_frames is None else int(clip.num_frames / clip.fps))


def write(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """A marker before each tile, the time before each frame; see edge_runtime.families.Family."""
    pad = bundle.token(bundle.manifest.card.image_token_id)
    pieces = re.split(f"({re.escape(pad)}|{re.escape(VIDEO)})", text)
    kinds = [VIDEO if one.timestamps else pad for one in items]
    if pieces[1::2] != kinds:
        raise wrong_pads(len(pieces[1::2]), len(items), "pictures and videos")
    pieces[1::2] = [_video(one, pad) if one.timestamps else _tiles(one, pad) for one in items]
    return "".join(pieces)


def _tiles(one: Item, pad: str) -> str:
    """The rule is `get_image_prompt_string` of transformers' SmolVLM processor."""
    assert one.arranged is not None  # `picture` sets it
    _, rows, columns = one.arranged
    lines = (
        "".join(f"{AROUND}<row_{row}_col_{column}>{pad}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return "".join(lines) + ("\n" if rows else "") + f"{AROUND}{WHOLE}{pad}{AROUND}"


def _video(one: Item, pad: str) -> str:
    """The rule is `replace_video_token` of transformers' SmolVLM processor."""
    duration = timedelta(seconds=one.duration)
    frames = (
        f"\nFrame from {int(second // 60):02d}:{int(second % 60):02d}:{AROUND}{WHOLE}{pad}{AROUND}"
        for second in one.timestamps
    )
    number = in_words(len(one.timestamps))
    return (
        f"You are provided the following series of {number} frames from a {duration} [H:MM:SS] video.\n"
        + "".join(frames)
        + "\n\n"
    )


def in_words(number: int) -> str:
    """An English number below 1,000, as the package num2words writes it.

    Raises:
        MediaError: the number is larger.
    """
    if number >= 1000:
        raise MediaError(f"the video has {number} frames, up to 999 are allowed: give nframes or fps")
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < len(ONES):
        return ONES[number]
    return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
