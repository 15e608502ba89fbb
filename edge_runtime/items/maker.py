"""Makes the item of a picture or video within one bundle's and one device's bounds.

The facts fit into JSON, so that another process can make the very same items (workers.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from contract.card import ModelCard
from contract.errors import MediaError
from contract.manifest import plain
from contract.preprocessing import ImageProcessing, VideoProcessing
from contract.typed import read
from edge_runtime.items.grid_choice import Size
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.preparation import FramesRead, picture_item, video_item
from edge_runtime.items.video_options import VideoOptions

Options = PictureOptions | VideoOptions


class Asker(Protocol):
    """Somebody who waits for an item and may leave.

    Attributes:
        caller: the name of the client; clients share the workers fairly.
        has_left: whether it has left.
    """

    caller: bytes
    has_left: bool

    def told(self, leave: Callable[[], None]) -> AbstractContextManager[None]:
        """Inside the block, call `leave` when the asker leaves; call it at once where the asker left before."""


class Patient:
    """An asker that never leaves: the device itself."""

    caller, has_left = b"", False

    def told(self, leave: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


PATIENT = Patient()


class MakeItem(Protocol):
    """Makes the item of a resolved source (media.access)."""

    def __call__(self, source: Any, options: Options, asker: Asker, mode: str = "") -> Item:
        """Make the item.

        Args:
            source: what MediaAccess made of the source.
            options: what the message says about the picture or video; their type tells which of the two it is.
            asker: who waits for the item.
            mode: what the family says of the pictures of this conversation (families.Family.mode).

        Raises:
            MediaError: the source cannot be decoded within the limits of this maker.
            MissingExtra: the source is a video file, and PyAV is not installed.
        """


@dataclass(frozen=True)
class ItemMaker:
    """Decodes in this process, without limits of time and memory.

    Attributes:
        max_pixels: the most pixels of a video frame, whatever the bundle allows.
        max_tiles: the most tiles of a picture, where the family cuts tiles; None leaves it to the bundle.
        progress: a function that gets the number of frames read so far and the number wanted; None calls nothing.
        sizes: height and width in pixels of the pictures that an accelerator takes.
    """

    card: ModelCard
    image: ImageProcessing
    video: VideoProcessing
    max_pixels: int | None = None
    max_tiles: int | None = None
    progress: FramesRead | None = None
    sizes: tuple[Size, ...] = ()

    def __call__(self, source: Any, options: Options, asker: Asker = PATIENT, mode: str = "") -> Item:
        if isinstance(options, PictureOptions):
            return self._bounded(picture_item(source, self.image, self.card, options, mode, self.sizes))
        return video_item(source, self.video, self.card, options, self.max_pixels, self.progress)

    def _bounded(self, item: Item) -> Item:
        count = item.tower_thw[0]
        if self.max_tiles is not None and count > self.max_tiles:
            raise MediaError(
                f"the picture becomes {count} tiles, {self.max_tiles} are allowed: send one of fewer pixels or nearer to a "
                "square, or raise max_tiles"
            )
        return item

    def facts(self) -> dict[str, Any]:
        """The facts from which `from_facts` makes an equal maker; JSON can hold them."""
        parts = {name: asdict(getattr(self, name)) for name in ("image", "video")}
        bounds = {"max_pixels": self.max_pixels, "max_tiles": self.max_tiles, "sizes": self.sizes}
        return {**parts, "card": plain(self.card), **bounds}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "ItemMaker":
        kinds = {"card": ModelCard, "image": ImageProcessing, "video": VideoProcessing}
        parts: dict[str, Any] = {name: read(kind, facts[name], name) for name, kind in kinds.items()}
        bounds = {"max_pixels": facts["max_pixels"], "max_tiles": facts["max_tiles"], "sizes": tuples(facts["sizes"])}
        return cls(parts["card"], parts["image"], parts["video"], **bounds)


def tuples(value: Any) -> Any:
    """A value out of JSON with tuples in the place of lists, as frozen dataclasses have them."""
    if isinstance(value, list):
        return tuple(map(tuples, value))
    return {name: tuples(inner) for name, inner in value.items()} if isinstance(value, dict) else value
