"""The size at which the tower encodes a picture or video.

Python's round, floor and ceil in exactly this order decide the grid, and the grid decides the prompt: one pixel more or
less can change the number of tokens.
"""

import math

from contract.errors import MediaError

MAX_ASPECT_RATIO = 200
MIN_TOKENS, MAX_TOKENS = 4, 16_384  # bounds where no option says otherwise (qwen-vl-utils)


def _check_ratio(height: int, width: int) -> None:
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise MediaError(f"picture is {width} x {height}, an aspect ratio up to {MAX_ASPECT_RATIO} is allowed")


def _fit(height: int, width: int, factor: int, frames: int, low: int, high: int, count: int) -> tuple[int, int]:
    _check_ratio(height, width)
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if count * new_height * new_width > high:
        beta = math.sqrt(frames * height * width / high)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif count * new_height * new_width < low:
        beta = math.sqrt(low / (frames * height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def image_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width in pixels, multiples of `factor`, whose product lies between min_pixels and max_pixels.

    Raises:
        MediaError: the aspect ratio is above 200.

    The rule is `smart_resize` of transformers' Qwen2-VL image processor.
    """
    return _fit(height, width, factor, 1, min_pixels, max_pixels, 1)


def video_size(
    num_frames: int, height: int, width: int, factor: int, temporal_patch_size: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Height and width of every frame in pixels, multiples of `factor`; the bounds count frames x height x width.

    Raises:
        MediaError: the aspect ratio is above 200.

    The rule is `smart_resize` of transformers' Qwen3-VL video processor.
    """
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    count = round(num_frames / temporal_patch_size) * temporal_patch_size
    return _fit(height, width, factor, num_frames, min_pixels, max_pixels, count)


def frame_size(
    num_frames: int,
    height: int,
    width: int,
    factor: int,
    min_pixels: int | None,
    max_pixels: int | None,
    total_pixels: int | None,
) -> tuple[int, int]:
    """Height and width of every frame in pixels, under budgets of one frame and of all temporal patches together.

    Raises:
        MediaError: the aspect ratio is above 200, or min_pixels is above what max_pixels and total_pixels leave.

    The rule and its constants (128 to 768 tokens a frame, nine tenths of 128,000 tokens in all) are those of
    `fetch_video` of qwen-vl-utils 0.0.14.
    """
    low = 128 * factor**2 if min_pixels is None else min_pixels
    total = 128_000 * factor**2 * 0.9 if total_pixels is None else total_pixels
    cap = max(min(768 * factor**2, total / num_frames * 2), int(low * 1.05))
    high = cap if max_pixels is None else min(max_pixels, cap)
    return picture_size(height, width, factor, low, high)


def picture_size(
    height: int, width: int, factor: int, min_pixels: int | None, max_pixels: float | None
) -> tuple[int, int]:
    """Height and width in pixels, multiples of `factor`; a bound that is None is 4 tokens below or 16,384 tokens above.

    Raises:
        MediaError: the aspect ratio is above 200, or min_pixels is above max_pixels.

    The rule is `smart_resize` of qwen-vl-utils 0.0.14 with one difference: a side is never below `factor`.
    """
    low = MIN_TOKENS * factor**2 if min_pixels is None else min_pixels
    high = MAX_TOKENS * factor**2 if max_pixels is None else max_pixels
    if low > high:
        raise MediaError(f"min_pixels is {low}, at most {high:g} is allowed here: give a smaller min_pixels")
    _check_ratio(height, width)
    new_height, new_width = (max(factor, round(side / factor) * factor) for side in (height, width))
    if new_height * new_width > high:
        beta = math.sqrt(height * width / high)
        new_height, new_width = (max(factor, math.floor(side / beta / factor) * factor) for side in (height, width))
    elif new_height * new_width < low:
        beta = math.sqrt(low / (height * width))
        new_height, new_width = (math.ceil(side * beta / factor) * factor for side in (height, width))
    return new_height, new_width
