"""What the device does for each family of models: one module a family; `find` takes transformers' `model_type`."""

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
    """What the device needs to know of a family.

    Attributes:
        MARKS: the texts beside the pads at which `write` puts an item; where a person types one, it is text.
    """

    MARKS: tuple[str, ...]

    def indices(self, num_frames: int, fps: float, how: VideoProcessing, options: "VideoOptions") -> NDArray[np.int64]:
        """The indices of the chosen frames, int64 (n,), ascending, out of `num_frames` at `fps` frames per second.

        Raises:
            MediaError: the part of the video is empty, or the options ask for more frames than there are or may be.
        """

    def mode(self, num_pictures: int) -> str:
        """How the family cuts a conversation's pictures, where that depends on their number; "" in most families."""

    def arrange(self, rows: NDArray[np.float32], items: "Sequence[Item]", bundle: "Bundle") -> NDArray[np.float32]:
        """The rows of the prompt, float32 (N, H), out of the tower's rows of all items (., H), item by item."""

    def picture(
        self,
        image: Image.Image,
        how: ImageProcessing,
        card: ModelCard,
        options: "PictureOptions",
        mode: str,
    ) -> "Item":
        """The item of an RGB picture: resized and cut as the tower wants it.

        Args:
            mode: what `mode` says of the conversation; "" where there is no conversation.

        Raises:
            MediaError: the aspect ratio is too large, or the options contradict each other.
        """

    def clip(self, clip: "Clip", how: VideoProcessing, card: ModelCard) -> "Item":
        """The item of a video: its frames resized and cut as the tower wants them.

        Raises:
            MediaError: the family takes no videos, frames differ in size, or the options contradict each other.
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
        """The height and width of every frame of a video, in pixels; only families whose rows stand on grids have this.

        Raises:
            MediaError: the aspect ratio is above 200, or min_pixels is above max_pixels.
        """

    def write(self, text: str, items: "Sequence[Item]", bundle: "Bundle") -> str:
        """The prompt with one pad for each run of rows, and the text that stands around the runs.

        Args:
            text: what the chat template made, one pad for each item.
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
