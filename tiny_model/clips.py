"""Short videos that train the bundled model: a shape that moves, or shapes one after the other.

Questions about the movement need the order of frames; "what is shown at 1.2 seconds" needs the timestamp texts to stand
with the right frames.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image

from tiny_model.scenes import COLORS, GROUNDS, SHAPES, Shape, region, render

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class DrawnClip:
    """Frames and what happens: `direction` of a moving shape, or one `shown` shape per temporal pair.

    `shapes` holds the shape as it stands in the first frame of every pair.
    """

    frames: tuple[Image.Image, ...]
    shapes: tuple[Shape, ...]
    direction: str = ""

    @property
    def shown(self) -> tuple[Shape, ...]:
        return () if self.direction else self.shapes


def _shape(random: Random, x: float, y: float, width: int, height: int) -> Shape:
    return Shape(
        random.choice(SHAPES), random.choice(list(COLORS)), x, y, random.uniform(12, 18), region(x, y, width, height)
    )


def moving_clip(random: Random, width: int, height: int, num_pairs: int, scale: int = 1) -> DrawnClip:
    """One shape that crosses a good part of the canvas in a straight line; 2 * num_pairs frames."""
    direction = random.choice(list(DIRECTIONS))
    dx, dy = DIRECTIONS[direction]
    margin, ground = 20, random.choice(GROUNDS)
    reach_x, reach_y = (width - 2 * margin) / 2, (height - 2 * margin) / 2
    travel = random.uniform(0.65, 1.0)  # share of the half side to either side of the centre
    still_x = width / 2 if dx else random.uniform(margin, width - margin)
    still_y = height / 2 if dy else random.uniform(margin, height - margin)
    shape = _shape(random, still_x, still_y, width, height)
    num_frames = 2 * num_pairs
    steps = [travel * (2 * i / (num_frames - 1) - 1) for i in range(num_frames)]
    path = [(still_x + dx * reach_x * s, still_y + dy * reach_y * s) for s in steps]
    placed = [Shape(shape.kind, shape.color, x, y, shape.radius, region(x, y, width, height)) for x, y in path]
    frames = tuple(render((p,), width, height, ground, scale) for p in placed)
    return DrawnClip(frames, tuple(placed[::2]), direction)


def slideshow_clip(random: Random, width: int, height: int, num_pairs: int, scale: int = 1) -> DrawnClip:
    """One other shape in every temporal pair; 2 * num_pairs frames."""
    ground, shapes = random.choice(GROUNDS), list[Shape]()
    while len(shapes) < num_pairs:
        shape = _shape(random, random.uniform(20, width - 20), random.uniform(20, height - 20), width, height)
        if all(shape.kind != other.kind and shape.color != other.color for other in shapes):
            shapes.append(shape)
    frames = [render((shape,), width, height, ground, scale) for shape in shapes for _ in range(2)]
    return DrawnClip(tuple(frames), tuple(shapes))
