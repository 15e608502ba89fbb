"""Line charts side by side in one picture, drawn with Pillow, which is a dependency anyway; saved without a date.

One series a colour, the same in every panel; both axes start at 0, so that twice as high is twice as much.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, TEXT_SIZE = 560, 400, 78, 24, 84, 56, 14
INK, PALE, PAPER = (32, 36, 44), (214, 218, 226), (255, 255, 255)
COLOURS = ((30, 110, 170), (214, 106, 42), (70, 150, 90), (150, 80, 160))
NUM_STEPS, MAX_LABELS = 4, 8


@dataclass(frozen=True)
class Panel:
    """A title with the unit, and the points (x, y) of every series by its name."""

    title: str
    series: dict[str, list[tuple[float, float]]]


def draw_chart(title: str, x_title: str, panels: list[Panel], path: Path) -> None:
    """Write the panels side by side as a PNG file."""
    picture = Image.new("RGB", (WIDTH * len(panels), HEIGHT), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT_SIZE)
    draw.text((LEFT, 12), title, INK, ImageFont.load_default(18))
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    for number, panel in enumerate(panels):
        _draw_panel(draw, font, panel, x_title, number * WIDTH, names)
    picture.save(path, "PNG")


def _draw_panel(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, panel: Panel, x_title: str, left: int, names: list[str]
) -> None:
    points = [point for series in panel.series.values() for point in series]
    x_end, y_end = max(x for x, _ in points), _round_up(max(y for _, y in points))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return left + LEFT + x / x_end * inner_width, TOP + inner_height * (1 - y / y_end)

    draw.text((left + LEFT, TOP - 26), panel.title, INK, font)
    for step in range(NUM_STEPS + 1):
        value = y_end * step / NUM_STEPS
        draw.line((place(0, value), place(x_end, value)), PALE)
        draw.text((left + LEFT - 8, place(0, value)[1]), f"{value:g}", INK, font, anchor="rm")
    places = sorted({x for x, _ in points})
    for x in places if len(places) <= MAX_LABELS else places[:: -(-len(places) // MAX_LABELS)]:
        draw.text((place(x, 0)[0], HEIGHT - BOTTOM + 8), f"{x:g}", INK, font, anchor="ma")
    draw.text((left + LEFT + inner_width / 2, HEIGHT - 14), x_title, INK, font, anchor="ms")
    for row, (name, series) in enumerate(panel.series.items()):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        draw.line([place(*point) for point in series], colour, 3)
        for point in series:
            x, y = place(*point)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        draw.text((left + WIDTH - RIGHT, TOP - 26 + row * 18), name, colour, font, anchor="ra")


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten; labels stay short."""
    scale = 1.0
    while scale * 8 < value:
        scale *= 10
    while scale > value:
        scale /= 10
    return next(scale * factor for factor in (1, 2, 4, 8, 10) if scale * factor >= value)
