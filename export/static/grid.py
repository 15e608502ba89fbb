"""The picture sizes for which an export writes a graph each, as --static names them."""

import re
from dataclasses import dataclass

from contract.errors import InvalidInput, shown
from contract.static_graph import MAX_PATCHES
from export.graph.tower import Tower

FORM = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)


@dataclass(frozen=True)
class Grid:
    """One size.

    Attributes:
        height, width: sides of the picture in patches.
        patch_size: pixels of a patch's side.
    """

    height: int
    width: int
    patch_size: int

    @property
    def num_patches(self) -> int:
        return self.height * self.width

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height * self.patch_size, self.width * self.patch_size

    def __str__(self) -> str:
        """Height and width in pixels, as --static takes them."""
        return "x".join(map(str, self.pixels))


def grids_of(text: str, tower: Tower) -> tuple[Grid, ...]:
    """The grids of `HEIGHTxWIDTH[,HEIGHTxWIDTH]`, in pixels.

    Raises:
        InvalidInput: the text has another form, names a size twice, or names a size that the tower cannot take.
    """
    if tower.fixed_side is not None:
        raise InvalidInput(
            f"--static is {shown(text)}, and this model cuts pictures into tiles of one size: only towers that take any size "
            "have static graphs. Leave --static out"
        )
    found: list[Grid] = []
    step = tower.patch_size * tower.merge_size
    for part in text.split(","):
        match = FORM.fullmatch(part.strip())
        if match is None:
            raise InvalidInput(
                f"--static is {shown(text)}, and {shown(part)} is no size: give HEIGHTxWIDTH in pixels, several with commas "
                f"between them, such as {14 * step}x{14 * step},{12 * step}x{16 * step}"
            )
        height, width = int(match[1]), int(match[2])
        if height % step or width % step:
            near = "x".join(str(max(step, round(side / step) * step)) for side in (height, width))
            raise InvalidInput(
                f"--static has {height}x{width}, and a merge block of this model has {step} x {step} pixels: both sides must "
                f"be multiples of {step}, such as {near}"
            )
        grid = Grid(height // tower.patch_size, width // tower.patch_size, tower.patch_size)
        if grid.num_patches > MAX_PATCHES:
            raise InvalidInput(
                f"--static has {grid}, {grid.num_patches} patches: at most {MAX_PATCHES} are allowed, and an accelerator "
                "holds the scores of all pairs of them"
            )
        if grid in found:
            raise InvalidInput(f"--static names {grid} twice: name each size once")
        found.append(grid)
    return tuple(found)
