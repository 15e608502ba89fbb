"""The size at which the model looks at a picture; the options have the names and follow the rule of qwen-vl-utils.

Where a message says nothing the bundle's processor file decides; in any case no picture is larger than the bundle and
the device allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contract.preprocessing import ImageProcessing
from edge_runtime.items.grid_choice import Size, grid_choice
from edge_runtime.items.options import check_numbers, names, options_of
from edge_runtime.items.resize import MAX_TOKENS, image_size, picture_size


@dataclass(frozen=True)
class PictureOptions:
    """What a message may say about a picture.

    Attributes:
        min_pixels, max_pixels: bounds of height x width of the resized picture; either puts qwen-vl-utils' rule (4 to
            16,384 tokens where the other is None) in the place of the bundle's own bounds.
        resized_height, resized_width: the size itself, rounded to whole merge blocks; both or none.

    Raises:
        MediaError: a value is no whole number above 0, or one of the two sizes is missing.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, whole=names(PictureOptions))

    @classmethod
    def of(cls, part: dict[str, Any]) -> "PictureOptions":
        """The options among the keys of a content part."""
        return options_of(cls, part)

    def size(self, height: int, width: int, factor: int, how: ImageProcessing) -> tuple[int, int]:
        """The height and width, in pixels, to which the family resizes a picture.

        Args:
            height, width: the picture's own, in pixels.
            factor: pixels of a merge block's side; both results are multiples of it.
            how: the bundle's bounds.

        Raises:
            MediaError: the aspect ratio is above 200, or min_pixels is above what max_pixels or the bundle allow.
        """
        most = min(how.max_pixels, MAX_TOKENS * factor**2)
        if self.resized_height is not None and self.resized_width is not None:
            return picture_size(self.resized_height, self.resized_width, factor, None, most)
        if self.min_pixels is self.max_pixels is None:
            return image_size(height, width, factor, how.min_pixels, how.max_pixels)
        most = most if self.max_pixels is None else min(self.max_pixels, how.max_pixels)
        return picture_size(height, width, factor, self.min_pixels, most)

    def on_grid(
        self, height: int, width: int, factor: int, how: ImageProcessing, sizes: Sequence[Size]
    ) -> "PictureOptions":
        """The options that give the picture a size of the accelerator, where one of `sizes` fits it and this message;
        else the same options. Arguments and errors are those of `size`."""
        usual = self.size(height, width, factor, how)
        bounds = float(self.min_pixels or 0), float(min(self.max_pixels or how.max_pixels, how.max_pixels))
        is_fixed = self.resized_height is not None
        chosen = grid_choice(height, width, usual, () if is_fixed else sizes, factor, bounds)
        if chosen is None or chosen == usual:
            return self
        return PictureOptions(resized_height=chosen[0], resized_width=chosen[1])
