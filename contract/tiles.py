"""How a family of fixed tiles makes square tiles of a picture, and rows of the tiles."""

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

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
)
Side = Annotated[int, Between(1, 1 << 16)]


@dataclass(frozen=True)
class Tiles:
    """The facts of a processor that cuts tiles.

    Attributes:
        rule: one of RULES.
        side: pixels of a tile.
        seen: pixels of a tile that whole patches cover.
        merge: sides of a block of patches that becomes one row.
        mean: of each channel on the 0..1 scale; the colour that the rule `pad` fills with.
        pinpoints: (height, width) in pixels of the canvases of the rule `anyres`.
        min_tiles, max_tiles: bounds of the rule `canvas`; max_tiles that of `longest`, too, where 1 cuts no tiles.
        has_newline: each row of an unpadded map ends with a learned row.
        longest, frame_longest: pixels of the longest edge of a picture, and of a video's frame, by the rule `longest`.
        max_map_tiles: a map that has more than 1.21 times the rows of this many tiles is shrunk to them; None leaves it as it is.
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

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise BundleError(f"tiles.rule is {shown(self.rule)}, supported are {', '.join(RULES)}")
        if self.seen > self.side or self.side_rows < 1:
            raise BundleError(
                f"tiles has side {self.side}, seen {self.seen}, patch {self.patch} and merge {self.merge}: a tile has no "
                "whole row, export it again"
            )
        if self.min_tiles > self.max_tiles:
            raise BundleError(f"tiles.min_tiles is {self.min_tiles}, tiles.max_tiles {self.max_tiles}: export it again")

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
        return self.side_rows**2

    @property
    def most_tiles(self) -> int:
        """The most tiles that a picture becomes, the whole picture or its thumbnail among them."""
        cut = max([self.max_tiles, *(height * width // self.side**2 for height, width in self.pinpoints)])
        has_whole = bool(self.pinpoints) or self.max_tiles > 1
        return cut + has_whole

    def facts(self) -> dict[str, Any]:
        """What goes into an encoder's name and into JSON. A field that a later version added stands there where it is not
        neutral, so that encoders keep their names and bundles stay readable."""
        neutral = {one.name: one.default for one in fields(self) if one.kw_only}
        return {name: value for name, value in asdict(self).items() if name not in neutral or value != neutral[name]}
