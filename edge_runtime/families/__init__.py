"""What the device does for a family: one module each, found by transformers' `model_type` (contract.families)."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.card import ModelCard
from contract.families import module_name
from contract.preprocessing import ImageProcessing, VideoProcessing

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.items.clip import Clip
    from edge_runtime.items.item import Item
    from edge_runtime.items.picture_options import PictureOptions
    from edge_runtime.items.video_options import VideoOptions


class Family(Protocol):
    """What the device needs to know of a family."""

    def indices(self, num_frames: int, fps: float, how: VideoProcessing, options: "VideoOptions") -> NDArray[np.int64]:
        """Frames to look at, int64 (n,), ascending, out of `num_frames` at `fps` frames per second.

        Raises:
            MediaError: more frames are asked for than there are or may be.
        """

    def mode(self, num_pictures: int) -> str:
        """How pictures of a conversation are cut, where that depends on how many it shows; "" in most families."""

    def arrange(self, rows: NDArray[np.float32], items: "Sequence[Item]", bundle: "Bundle") -> NDArray[np.float32]:
        """The tower's rows of all items (., H) to those of the prompt (N, H), items one after another."""

    def picture(
        self,
        image: Image.Image,
        how: ImageProcessing,
        card: ModelCard,
        options: "PictureOptions",
        mode: str,
    ) -> "Item":
        """An RGB picture as the tower wants it.

        Args:
            mode: what `mode` said of the conversation; "" where there is none.

        Raises:
            MediaError: its aspect ratio is too large, or the options contradict each other.
        """

    def clip(self, clip: "Clip", how: VideoProcessing, card: ModelCard) -> "Item":
        """A video as the tower wants it.

        Raises:
            MediaError: frames differ in size, or the options contradict each other.
        """

    def frame_size(
        self,
        num_frames: int,
        height: int,
        width: int,
        how: VideoProcessing,
        card: ModelCard,
        options: "VideoOptions",
        max_pixels: int | None,
    ) -> tuple[int, int]:
        """Height and width of every frame of a video; only of families whose rows stand on grids.

        Raises:
            MediaError: an aspect ratio above 200, or min_pixels above max_pixels.
        """

    def write(self, text: str, items: "Sequence[Item]", bundle: "Bundle") -> str:
        """The prompt with one pad a run, and what stands around the runs.

        Args:
            text: what the chat template made, one pad an item.
            items: pictures and videos in prompt order.

        Raises:
            InvalidInput: the pads in the text are not those of the items.
        """


def find(model_type: object) -> Family:
    """The module of this package for a model_type.

    Raises:
        BundleError: no family has this model_type.
    """
    return cast(Family, import_module(f"{__name__}.{module_name(model_type)}"))
