"""How a family of fixed tiles makes square tiles of a picture, and rows of the tiles."""

from dataclasses import dataclass, fields
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

    @classmethod
    def from_json(cls, values: Any, source: str) -> "Tiles":
        """Read what dataclasses.asdict and JSON made of it.

        Raises:
            BundleError: a key is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            wrong = sorted(names ^ values.keys())[0] if isinstance(values, dict) else type(values).__name__
            raise BundleError(f"{source}: {wrong!r} is missing or unknown: export it again")
        changed = {"mean": tuple(values["mean"]), "pinpoints": tuple((h, w) for h, w in values["pinpoints"])}
        return cls(**values | changed)
