"""Which of an accelerator's picture sizes a picture takes, so that it loses least.

The processor gives a picture a size of its own shape within a budget, and rounds both sides to merge blocks. A size of
the accelerator fits where that rounding gives it for a budget of as many pixels: then the picture is no more distorted
than the processor distorts pictures anyway. Grid, ids and rows follow from the size that the picture really gets.
"""

import math
from collections.abc import Sequence

Size = tuple[int, int]  # height and width in pixels
MAX_ENLARGEMENT = 2.0  # of the number of pixels: a smaller picture is cheaper on the processor


def fits(height: int, width: int, size: Size, factor: int) -> bool:
    """Whether rounding to `factor` pixels makes `size` of a picture of this shape and as many pixels."""
    scale = math.sqrt(size[0] * size[1] / (height * width))
    return (round(height * scale / factor) * factor, round(width * scale / factor) * factor) == size


def grid_choice(
    height: int, width: int, usual: Size, sizes: Sequence[Size], factor: int, bounds: tuple[float, float]
) -> Size | None:
    """The size that wastes least: the nearest in pixels to the usual one. None where none fits.

    Args:
        height, width: the picture's own, in pixels.
        usual: the size that the processor would give it.
        sizes: those of the accelerator.
        factor: pixels of a merge block's side.
        bounds: the least and the most pixels that the message allows.
    """
    if usual in sizes:
        return usual
    area = usual[0] * usual[1]
    low, high = bounds
    found = [
        size
        for size in sizes
        if fits(height, width, size, factor)
        and low <= size[0] * size[1] <= high
        and size[0] * size[1] <= MAX_ENLARGEMENT * area
    ]
    return min(found, key=lambda size: abs(math.log(size[0] * size[1] / area)), default=None)
