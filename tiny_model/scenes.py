"""Pictures that train the bundled model: coloured shapes on a plain ground, or a short text.

This module needs only Pillow and random, because the demo and the tests draw from it too, on machines without torch. A
scene keeps what it shows, so questions have known answers and the tower can train on dense targets.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLORS = {
    "red": (220, 40, 40), "green": (40, 165, 60), "blue": (45, 80, 220), "yellow": (240, 210, 40),
    "purple": (150, 60, 180), "orange": (245, 140, 30), "black": (25, 25, 25), "gray": (130, 130, 130),
}  # fmt: skip
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
GROUNDS = ((255, 255, 255), (245, 240, 225), (225, 235, 245), (235, 245, 230), (250, 232, 236))
SIDES = (96, 128, 160)  # pixels; training draws scenes larger and shrinks them
MAX_OBJECTS = 4


_font = lru_cache(maxsize=64)(ImageFont.load_default)


@dataclass(frozen=True)
class Shape:
    """One object; x, y and radius in canvas pixels, region as `region` names it."""

    kind: str
    color: str
    x: float
    y: float
    radius: float
    region: str = ""

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


@dataclass(frozen=True)
class Glyph:
    """One character and its box in canvas pixels."""

    character: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Scene:
    """A picture and what is on it: shapes, or a text and its colour."""

    image: Image.Image
    shapes: tuple[Shape, ...] = ()
    text: str = ""
    text_color: str = ""
    glyphs: tuple[Glyph, ...] = ()


def region(x: float, y: float, width: int, height: int) -> str:
    """Name of the cell of a 3 x 3 grid that holds the point."""
    row = "top" if y < height / 3 else "bottom" if y > 2 * height / 3 else "middle"
    column = "left" if x < width / 3 else "right" if x > 2 * width / 3 else "center"
    return "center" if (row, column) == ("middle", "center") else f"{row} {column}"


def draw_shape(draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, r: float, fill: tuple[int, int, int]) -> None:
    """Draw one shape of radius r pixels around (x, y)."""
    if kind == "circle":
        draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    elif kind == "square":
        draw.rectangle([x - r * 0.86, y - r * 0.86, x + r * 0.86, y + r * 0.86], fill=fill)
    elif kind == "triangle":
        draw.polygon([(x, y - r), (x + r * 0.95, y + r * 0.8), (x - r * 0.95, y + r * 0.8)], fill=fill)
    elif kind == "diamond":
        draw.polygon([(x, y - r), (x + r * 0.8, y), (x, y + r), (x - r * 0.8, y)], fill=fill)
    elif kind == "cross":
        arm = r * 0.34
        draw.rectangle([x - arm, y - r, x + arm, y + r], fill=fill)
        draw.rectangle([x - r, y - arm, x + r, y + arm], fill=fill)
    elif kind == "star":
        radii = [r * 1.08 if i % 2 == 0 else r * 0.45 for i in range(10)]
        angles = [-math.pi / 2 + i * math.pi / 5 for i in range(10)]
        draw.polygon(
            [(x + q * math.cos(a), y + q * math.sin(a)) for q, a in zip(radii, angles, strict=True)], fill=fill
        )
    else:
        raise ValueError(f"unknown shape {kind!r}, one of {', '.join(SHAPES)}")


def render(shapes: tuple[Shape, ...], width: int, height: int, ground: tuple[int, int, int], scale: int) -> Image.Image:
    """Draw the shapes at `scale` times the canvas size."""
    image = Image.new("RGB", (width * scale, height * scale), ground)
    draw = ImageDraw.Draw(image)
    for s in shapes:
        draw_shape(draw, s.kind, s.x * scale, s.y * scale, s.radius * scale, COLORS[s.color])
    return image


def place_shapes(random: Random, width: int, height: int, count: int) -> tuple[Shape, ...]:
    """Up to `count` shapes that do not touch, one a grid cell, in reading order."""
    placed: dict[tuple[int, int], Shape] = {}
    for _ in range(200):
        if len(placed) == count:
            break
        r, row, column = random.uniform(11, 17), random.randrange(3), random.randrange(3)
        x = min(max((column + random.uniform(0.3, 0.7)) * width / 3, r + 1), width - r - 1)
        y = min(max((row + random.uniform(0.3, 0.7)) * height / 3, r + 1), height - r - 1)
        if (row, column) in placed or any(math.hypot(x - s.x, y - s.y) < r + s.radius + 2 for s in placed.values()):
            continue
        placed[row, column] = Shape(
            random.choice(SHAPES), random.choice(list(COLORS)), x, y, r, region(x, y, width, height)
        )
    return tuple(placed[cell] for cell in sorted(placed))


def shapes_scene(random: Random, width: int, height: int, scale: int = 1) -> Scene:
    """One to MAX_OBJECTS shapes on a canvas of width x height pixels, drawn `scale` times larger."""
    shapes = place_shapes(random, width, height, random.randint(1, MAX_OBJECTS))
    return Scene(render(shapes, width, height, random.choice(GROUNDS), scale), shapes)


def text_scene(random: Random, width: int, height: int, scale: int = 1) -> Scene:
    """Two to five characters in one colour, drawn with Pillow's built-in font."""
    count = random.randint(2, 5)
    alphabet = CHARACTERS[26:] if random.random() < 0.4 else CHARACTERS if random.random() < 0.3 else CHARACTERS[:26]
    text = "".join(random.choice(alphabet) for _ in range(count))
    color = random.choice([c for c in COLORS if c != "yellow"])  # yellow hardly shows on these grounds
    points, gap = random.randint(24, 30), random.uniform(1, 4)
    while True:
        font = _font(points * scale)
        widths = [font.getlength(c) / scale for c in text]
        total = sum(widths) + gap * (count - 1)
        if total <= width - 4 or points <= 14:
            break
        points -= 1
    image = Image.new("RGB", (width * scale, height * scale), random.choice(GROUNDS))
    draw = ImageDraw.Draw(image)
    x = random.uniform(2, max(2.1, width - 2 - total))
    y = random.uniform(2, max(2.1, height - 2 - points * 1.2))
    glyphs = []
    for character, advance in zip(text, widths, strict=True):
        draw.text((x * scale, y * scale), character, font=font, fill=COLORS[color])
        glyphs.append(Glyph(character, x, y + points * 0.2, x + advance, y + points * 1.05))
        x += advance + gap
    return Scene(image, text=text, text_color=color, glyphs=tuple(glyphs))
