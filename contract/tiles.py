"""How a family of fixed tiles makes square tiles of a picture, and rows of the tiles."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, shown
from contract.preprocessing import Triple
from contract.typed import Between, Size

RULES = (
    "crop",  # the short side to the tile, then the middle
    "pad",  # a square of the longer side, filled with the mean colour
    "squash",  # both sides to the tile
    "anyres",  # the whole picture, then the tiles of the best pinpoint
    "canvas",  # the tiles of the nearest aspect ratio, then a thumbnail
    "longest",  # the longest edge to a length, rounded up to whole tiles, then the whole picture
    "fit",  # one frame of as many patches as are allowed, near the picture's own aspect ratio
)
Side = Annotated[int, Between(1, 1 << 16)]


@dataclass(frozen=True)
class Tiles:
    """The facts of a processor that cuts tiles; all lengths are in pixels.

    Attributes:
        rule: one of RULES.
        side: side of a tile.
        seen: side of the part of a tile that whole patches cover.
        merge: side, in patches, of the block that becomes one row.
        patch: side of a patch.
        mean: the mean of each channel on the 0..1 scale; the rule `pad` fills with this colour.
        pinpoints: (height, width) of the canvases of the rule `anyres`.
        min_tiles, max_tiles: bounds of the rule `canvas`; max_tiles bounds `longest`, too, which cuts no tiles at 1.
        has_newline: each row of an unpadded map ends with a learned row.
        longest, frame_longest: longest edge of a picture, and of a video's frame, by the rule `longest`.
        max_map_tiles: the device shrinks a map with more than 1.21 times the rows of so many tiles to them; None leaves
            each map as it is.
        max_patches: the most patches of a frame by the rule `fit`, under which a patch is a tile; None by other rules.
        extra_rows: rows of a tile before those of its patches: 1 where the class row of CLIP stands in the prompt.
    """

    rule: str
    side: Side
    seen: Side
    merge: Side
    patch: Side
    mean: Triple
    pinpoints: tuple[tuple[Size, Size], ...] = ()
    min_tiles: Size = 1
    max_tiles: Size = 1
    has_newline: bool = False
    longest: Size | None = field(default=None, kw_only=True)
    frame_longest: Size | None = field(default=None, kw_only=True)
    max_map_tiles: Size | None = field(default=None, kw_only=True)
    max_patches: Size | None = field(default=None, kw_only=True)
    extra_rows: Annotated[int, Between(0, 1)] = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise BundleError(f"tiles.rule is {shown(self.rule)}, supported are {', '.join(RULES)}")
        if self.seen > self.side or self.side_rows < 1:
            raise BundleError(
                f"tiles has side {self.side}, seen {self.seen}, patch {self.patch} and merge {self.merge}: a tile has no "
                "whole row, export it again"
            )
        if (self.rule == "fit") != (self.max_patches is not None):
            raise BundleError(
                f"tiles.rule is {self.rule!r} and tiles.max_patches is {self.max_patches}: the rule 'fit' needs a number, "
                "the others have none"
            )
        if self.min_tiles > self.max_tiles:
            raise BundleError(
                f"tiles.min_tiles is {self.min_tiles}, at most tiles.max_tiles {self.max_tiles} is expected: export it again"
            )

    def seen_part(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of tiles (n, height, width, 3) that the tower looks at: whole patches."""
        whole = pixels if self.max_patches is not None else pixels[:, : self.seen, : self.seen]
        return np.ascontiguousarray(whole)

    @property
    def side_patches(self) -> int:
        """Patches along a side of a tile."""
        return self.seen // self.patch

    @property
    def side_rows(self) -> int:
        """Embedding rows along a side of a tile."""
        return self.side_patches // self.merge

    @property
    def num_rows(self) -> int:
        """Embedding rows of a tile."""
        return self.side_rows**2 + self.extra_rows

    @property
    def most_tiles(self) -> int:
        """The most tiles that a picture becomes; the whole picture, or its thumbnail, counts as one."""
        cut = max([self.max_tiles, *(height * width // self.side**2 for height, width in self.pinpoints)])
        has_whole = bool(self.pinpoints) or self.max_tiles > 1
        return cut + has_whole

    def facts(self) -> dict[str, Any]:
        """What goes into an encoder's name and into JSON. A field that a later version added goes in only where it
        differs from its default, so that encoders keep their names and bundles stay readable."""
        neutral = {one.name: one.default for one in fields(self) if one.kw_only}
        return {name: value for name, value in asdict(self).items() if name not in neutral or value != neutral[name]}
