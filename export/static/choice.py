"""What a user asks of the static graphs, and what the checkpoint makes of it."""

from dataclasses import dataclass

from contract.errors import InvalidInput, shown
from contract.preprocessing import ImageProcessing
from export.graph.tower import Tower
from export.static.grid import Grid, grids_of
from export.static.target import Target, target_named


@dataclass(frozen=True)
class StaticChoice:
    """The options of a command line.

    Attributes:
        sizes: `HEIGHTxWIDTH[,HEIGHTxWIDTH]` in pixels.
        target: the accelerator.
        precision: how it computes; None takes the target's first.
        chip: for compilers that make a file for one chip: its name.
    """

    sizes: str
    target: str = "onnx"
    precision: str | None = None
    chip: str | None = None


@dataclass(frozen=True)
class StaticPlan:
    """A choice that passed every check which needs no tensor."""

    grids: tuple[Grid, ...]
    target: Target
    precision: str
    chip: str

    @classmethod
    def of(cls, choice: StaticChoice, tower: Tower, image: ImageProcessing) -> "StaticPlan":
        """
        Args:
            image: the bounds within which the checkpoint's processor resizes pictures.

        Raises:
            InvalidInput: an option has no meaning for this checkpoint or this target.
        """
        target = target_named(choice.target)
        precision = choice.precision or target.precisions[0]
        if precision not in target.precisions:
            allowed = ", ".join(target.precisions)
            raise InvalidInput(f"--target-precision is {shown(precision)}, {target.name} has {allowed}")
        chip = choice.chip or target.chips[0] if target.chips else ""
        if choice.chip is not None and choice.chip not in target.chips:
            allowed = ", ".join(target.chips) or "one file for all: leave --chip out"
            raise InvalidInput(f"--chip is {shown(choice.chip)}, {target.name} has {allowed}")
        grids = grids_of(choice.sizes, tower)
        for grid in grids:
            height, width = grid.pixels
            if not image.min_pixels <= height * width <= image.max_pixels:
                raise InvalidInput(
                    f"--static has {grid}, {height * width} pixels: the checkpoint's processor makes pictures of "
                    f"{image.min_pixels} to {image.max_pixels}, so none would run on it"
                )
        return cls(grids, target, precision, chip)
