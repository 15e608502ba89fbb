"""InternVL on the device: a picture becomes the tiles of the nearest aspect ratio and a thumbnail, a frame one tile.

Pictures and videos have the same pad, so a video travels as a picture whose pads stand in one run for each frame.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime.bundle import Bundle
from edge_runtime.families.pads import wrong_pads
from edge_runtime.families.tiles import arrange, check_picture, frame_pixels, frames_chosen, item, mode, tiles_of
from edge_runtime.items.clip import Clip
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import canvas
from edge_runtime.items.video_options import VideoOptions, timestamps

__all__ = ["MARKS", "arrange", "clip", "indices", "mode", "picture", "write"]

VIDEO = "<video>"
MARKS = (VIDEO,)


def indices(num_frames: int, fps: float, how: VideoProcessing, options: VideoOptions) -> NDArray[np.int64]:
    """Every frame, or the middle frame of each equal part; see edge_runtime.families.Family.

    The rule is `sample_frames` of transformers' InternVL video processor, which counts in float32.
    """
    first, total, count = frames_chosen(num_frames, fps, how, options)
    step = total / count
    return first + (step / 2 + step * np.arange(count)).astype(np.float32).astype(np.int64)


def picture(image: Image.Image, how: ImageProcessing, card: ModelCard, options: PictureOptions, mode: str) -> Item:
    """All tiles in one run of pads; see edge_runtime.families.Family."""
    check_picture(image, options)
    tiles = tiles_of(card)
    pixels = canvas(image, tiles)
    return item(pixels, tiles, 1, len(pixels) * tiles.num_rows)


def clip(clip: Clip, how: VideoProcessing, card: ModelCard) -> Item:
    """One run of pads for each frame; see edge_runtime.families.Family."""
    tiles = tiles_of(card)
    pixels = frame_pixels(clip.images, clip.options, tiles.side)
    made = item(pixels, tiles, len(pixels), tiles.num_rows, timestamps=timestamps(clip.indices, clip.fps, 1))
    return made.with_pads_of_pictures()


def write(text: str, items: Sequence[Item], bundle: Bundle) -> str:
    """`<img>` and `</img>` around each run, `Frame1: ` before each frame; see edge_runtime.families.Family."""
    card = bundle.manifest.card
    tokens = (card.image_token_id, card.vision_start_token_id, card.vision_end_token_id)
    pad, start, end = (bundle.token(token) for token in tokens if token is not None)
    pieces = re.split(f"({re.escape(pad)}|{re.escape(VIDEO)})", text)
    kinds = [VIDEO if one.timestamps else pad for one in items]
    if pieces[1::2] != kinds:
        raise wrong_pads(len(pieces[1::2]), len(items), "pictures and videos")
    run = f"{start}{pad}{end}"
    pieces[1::2] = [
        "\n".join(f"Frame{number}: {run}" for number in range(1, one.grid_thw[0] + 1)) if kind == VIDEO else run
        for kind, one in zip(kinds, items, strict=True)
    ]
    return "".join(pieces)
