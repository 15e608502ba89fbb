"""Makes the item of a picture for an embedding model's tower, which looks at one tile.

The facts fit into JSON, so that another process can make the very same items (workers.py).
"""

from dataclasses import dataclass
from typing import Any

from contract.errors import MediaError
from contract.tiles import Tiles
from contract.typed import read
from edge_runtime.items.item import Item
from edge_runtime.items.maker import PATIENT, Asker, Options
from edge_runtime.items.patches import to_patches
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.tiles import check_ratio, one_tile
from edge_runtime.media.picture import load_picture

PLAIN = PictureOptions()


@dataclass(frozen=True)
class OneTileMaker:
    """Decodes in this process; resample is the number of Pillow's filter."""

    tiles: Tiles
    resample: int

    def __call__(self, source: Any, options: Options = PLAIN, asker: Asker = PATIENT, mode: str = "") -> Item:
        """The item of a picture; see edge_runtime.items.maker.MakeItem.

        Raises:
            MediaError: the picture cannot be decoded, one side is more than 200 times the other, or it comes with
                options or is a video.
        """
        if options != PLAIN:
            raise MediaError("a video, or a picture with a size of its own, was given: this model takes whole pictures")
        image = load_picture(source)
        check_ratio(image)
        pixels = self.tiles.seen_part(one_tile(image, self.tiles, self.resample))
        return Item(*to_patches(pixels, self.tiles.patch, self.tiles.merge, 1))

    def facts(self) -> dict[str, Any]:
        """The facts from which `from_facts` makes an equal maker; JSON can hold them."""
        return {"tiles": self.tiles.facts(), "resample": self.resample}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "OneTileMaker":
        return cls(read(Tiles, facts["tiles"], "tiles"), facts["resample"])
