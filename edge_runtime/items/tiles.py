"""Square tiles of a picture, uint8 (tiles, side, side, 3), equal in every byte to transformers' PIL backend.

These functions resize with Pillow's bicubic filter where the caller names no other. What they tell of a picture's size
follows from its original size, never from the resized one.
"""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import MediaError
from contract.preprocessing import BICUBIC
from contract.tiles import Tiles
from edge_runtime.items.item import resized

Pixels = NDArray[np.uint8]
MAX_RATIO = 200
SCALE_STEP = 1e-5
SCALES = SCALE_STEP / 10, 100.0  # between these the rule `fit` looks for a picture's scale


def check_ratio(image: Image.Image) -> None:
    """Refuse a picture whose sides differ by more than MAX_RATIO times.

    Raises:
        MediaError: the sides differ by more.
    """
    short, long = sorted(image.size)
    if long > MAX_RATIO * short:
        raise MediaError(f"the picture is {image.width} x {image.height}, an aspect ratio up to {MAX_RATIO} is allowed")


def cropped(image: Image.Image, side: int, resample: int = BICUBIC) -> Pixels:
    """The middle of the picture, uint8 (side, side, 3): its short side becomes `side`, and the long side is cut to it.

    The rule is `get_resize_output_image_size` and `center_crop` of transformers' CLIP image processor.
    """
    short, long = sorted(image.size)
    other = side * long // short  # the reference cuts off and does not round
    width, height = (side, other) if image.width <= image.height else (other, side)
    pixels = resized(image, height, width, resample)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def padded(image: Image.Image, side: int, mean: tuple[float, float, float]) -> Pixels:
    """The picture in the middle of a square of its longer side, resized to uint8 (side, side, 3).

    Args:
        mean: the colour of the rest of the square, red, green and blue on the 0..1 scale.

    The rule is `pad_to_square` of transformers' LLaVA image processor.
    """
    longer = max(image.size)
    square = Image.new("RGB", (longer, longer), tuple(int(value * 255) for value in mean))
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    return resized(square, side, side)


def best_pinpoint(height: int, width: int, pinpoints: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The canvas (height, width) that keeps most of the picture's pixels; at a tie the one that wastes least.

    The rule is `select_best_resolution` of transformers' image_processing_utils.
    """
    best, most, least = pinpoints[0], -1, 0
    for high, wide in pinpoints:
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = high * wide - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (high, wide), kept, wasted
    return best


def cut(pixels: Pixels, side: int) -> Pixels:
    """The tiles of a picture row by row, (tiles, side, side, 3); the picture's sides are multiples of `side`."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    blocks = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2)  # (rows, columns, side, side, 3)
    return blocks.reshape(-1, side, side, 3)


def anyres(image: Image.Image, tiles: Tiles) -> Pixels:
    """The whole picture squashed to a tile, then the tiles of its best pinpoint: there it lies in the middle of black.

    The rule is `get_image_patches` of transformers' LLaVA-NeXT image processor.
    """
    high, wide = best_pinpoint(image.height, image.width, tiles.pinpoints)
    scale_w, scale_h = wide / image.width, high / image.height
    if scale_w < scale_h:
        width, height = wide, min(math.ceil(image.height * scale_w), high)
    else:
        width, height = min(math.ceil(image.width * scale_h), wide), high
    canvas = np.zeros((high, wide, 3), np.uint8)
    top, left = (high - height) // 2, (wide - width) // 2
    canvas[top : top + height, left : left + width] = resized(image, height, width)
    return np.concatenate([resized(image, tiles.side, tiles.side)[None], cut(canvas, tiles.side)])


def nearest_canvas(height: int, width: int, tiles: Tiles) -> tuple[int, int]:
    """The (rows, columns) of tiles whose aspect ratio is nearest the picture's.

    At a tie the canvas with more tiles wins, where the picture has more than half of its pixels.

    The rule is `get_optimal_tiled_canvas` of transformers' GOT-OCR2 image processor.
    """
    sides = range(1, tiles.max_tiles + 1)
    pairs = [(c, r) for c, r in product(sides, sides) if tiles.min_tiles <= c * r <= tiles.max_tiles]
    columns, rows, nearest = 1, 1, math.inf
    for c, r in sorted(pairs, key=lambda pair: pair[0] * pair[1]):
        distance = abs(width / height - c / r)
        if distance < nearest or (distance == nearest and width * height > 0.5 * tiles.side**2 * c * r):
            columns, rows, nearest = c, r, distance
    return rows, columns


def canvas(image: Image.Image, tiles: Tiles) -> Pixels:
    """The tiles of the picture, squashed to its nearest canvas; where they are several, a thumbnail of it comes last.

    The rule is `crop_image_to_patches` of transformers' GOT-OCR2 image processor.
    """
    rows, columns = nearest_canvas(image.height, image.width, tiles)
    parts = cut(resized(image, rows * tiles.side, columns * tiles.side), tiles.side)
    if len(parts) == 1:
        return parts
    return np.concatenate([parts, resized(image, tiles.side, tiles.side)[None]])


def _with_longest(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width whose longer side is `longest`; the shorter one is rounded down, and then up to an even number.

    The rule is `_resize_output_size_rescale_to_max_len` of transformers' SmolVLM image processor.
    """
    ratio = width / height
    if width >= height:
        other = int(longest / ratio)
        return max(1, other + other % 2), longest
    other = int(longest * ratio)
    return longest, max(1, other + other % 2)


def whole_in_a_tile(image: Image.Image, tiles: Tiles, longest: int | None, resample: int) -> Pixels:
    """The whole picture as one tile, (side, side, 3): its longer side becomes `longest`, then both sides become `side`.

    Args:
        longest: pixels; None leaves this first step out.
    """
    if longest is not None:
        image = Image.fromarray(resized(image, *_with_longest(image.height, image.width, longest), resample))
    return resized(image, tiles.side, tiles.side, resample)


def longest_edge(image: Image.Image, tiles: Tiles, resample: int) -> tuple[Pixels, int, int]:
    """The tiles row by row with the whole picture behind them, then how many rows and columns of tiles there are.

    A picture that becomes one tile has 0 rows and 0 columns.

    The rule is `_preprocess` of transformers' SmolVLM image processor, which resizes a picture twice.
    """
    assert tiles.longest is not None  # the export sets it with this rule
    if tiles.max_tiles == 1:
        return whole_in_a_tile(image, tiles, tiles.longest, resample)[None], 0, 0
    side = tiles.side
    height, width = _with_longest(image.height, image.width, tiles.longest)
    image, ratio = Image.fromarray(resized(image, height, width, resample)), width / height
    if width >= height:
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / ratio) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * ratio) / side)
    pixels = resized(image, rows * side, columns * side, resample)
    if rows == columns == 1:
        return pixels[None], 0, 0
    whole = resized(Image.fromarray(pixels), side, side, resample)
    return np.concatenate([cut(pixels, side), whole[None]]), rows, columns


def fitting_size(height: int, width: int, patch: int, max_patches: int) -> tuple[int, int]:
    """The largest height and width, both whole patches, that a picture takes at its own aspect ratio.

    Args:
        height, width: the picture's sides in pixels.
        patch: side of a patch in pixels.
        max_patches: the most patches of the result.

    The rule is `get_image_size_for_max_num_patches` of transformers' SigLIP 2 image processor: it halves an interval of
    scales until it is short, and takes the lower end.
    """

    def side(scale: float, size: int) -> int:
        return max(patch, math.ceil(size * scale / patch) * patch)

    low, high = SCALES
    while high - low >= SCALE_STEP:
        scale = (low + high) / 2
        if side(scale, height) / patch * (side(scale, width) / patch) <= max_patches:
            low = scale
        else:
            high = scale
    return side(low, height), side(low, width)


def one_tile(image: Image.Image, tiles: Tiles, resample: int = BICUBIC) -> Pixels:
    """The whole picture in one tile, by the rules `crop`, `pad` and `squash`: (1, side, side, 3); by the rule `fit` in
    one frame of another height and width."""
    if tiles.rule == "crop":
        return cropped(image, tiles.side, resample)[None]
    if tiles.rule == "pad":
        return padded(image, tiles.side, tiles.mean)[None]
    if tiles.max_patches is not None:
        size = fitting_size(image.height, image.width, tiles.patch, tiles.max_patches)
        return resized(image, *size, resample)[None]
    return resized(image, tiles.side, tiles.side, resample)[None]
