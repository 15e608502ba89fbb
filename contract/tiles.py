"""How a family of fixed tiles makes square tiles of a picture, and rows of the tiles."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from contract.errors import BundleError

RULES = (
    "crop",  # the short side to the tile, then the middle
    "pad",  # a square of the longer side, filled with the mean colour
    "squash",  # both sides to the tile
    "anyres",  # the whole picture, then the tiles of the best pinpoint
    "canvas",  # the tiles of the nearest aspect ratio, then a thumbnail
)


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
        min_tiles, max_tiles: bounds of the rule `canvas`.
        has_newline: each row of an unpadded map ends with a learned row.
        max_map_tiles: a map that has more than 1.21 times the rows of this many tiles is shrunk to them; None leaves it as it is.
    """

    rule: str
    side: int
    seen: int
    merge: int
    patch: int
    mean: tuple[float, float, float]
    pinpoints: tuple[tuple[int, int], ...] = ()
    min_tiles: int = 1
    max_tiles: int = 1
    has_newline: bool = False
    max_map_tiles: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise BundleError(f"tiles.rule is {self.rule!r}, supported are {', '.join(RULES)}")

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

    @classmethod
    def from_json(cls, values: Any, source: str) -> "Tiles":
        """Read what `facts` and JSON made of it.

        Raises:
            BundleError: a key is missing or unknown.
        """
        if not isinstance(values, dict):
            raise BundleError(f"{source} is {type(values).__name__}, an object is expected: export it again")
        names, later = {one.name for one in fields(cls)}, {one.name for one in fields(cls) if one.kw_only}
        if wrong := sorted((names - later - values.keys()) | (values.keys() - names)):
            raise BundleError(f"{source}: {wrong[0]!r} is missing or unknown: export it again")
        changed = {"mean": tuple(values["mean"]), "pinpoints": tuple((h, w) for h, w in values["pinpoints"])}
        return cls(**values | changed)
