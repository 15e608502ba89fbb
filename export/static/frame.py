"""One frame of one size: what a family's static graph gets, as names of graph values."""

from dataclasses import dataclass

MAIN = "image"  # the name of the main output


def level_output(level: int) -> str:
    """The name of a level's output."""
    return f"deep{level}"


@dataclass(frozen=True)
class Frame:
    """The patches of a frame and what follows from their places.

    Attributes:
        num_patches: how many patches.
        cosines, sines: constants float32 (1, 1, patches, head_dim / 2).
    """

    num_patches: int
    cosines: str
    sines: str
