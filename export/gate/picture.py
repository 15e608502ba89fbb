"""parity.png: the parity table as a picture, one row a pack and one column an output, colour on a logarithmic scale.

A table of a hundred numbers hides a pattern; a picture shows whether errors grow with the level, the size or the
frames. A cell shows the relative error where the gate bounds it (fp32), else 1 - mean cosine. `draw_parity` uses
Pillow's built-in font and saves no date: the same rows give the same bytes.
"""

import math
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from export.gate.bounds import Gate
from export.gate.parity import Row

NAME = "parity.png"
MARGIN, LINE, CELL, LABELS, TEXT_SIZE = 24, 24, 132, 400, 15
INK, PALE, PAPER, FAILED = (32, 36, 44), (120, 126, 138), (255, 255, 255), (200, 40, 40)
# From far below the gate to the gate itself: decades of the value over its bound.
RAMP = ((-6.0, (222, 240, 232)), (-3.0, (140, 202, 186)), (-1.0, (247, 211, 120)), (0.0, (226, 110, 62)))


def _value(row: Row, gate: Gate) -> tuple[float, float]:
    """The value that a row shows, and the gate's bound for it."""
    if gate.max_relative_error is not None:
        return math.inf if row.relative_error is None else row.relative_error, gate.max_relative_error
    return math.inf if row.mean_cosine is None else max(0.0, 1 - row.mean_cosine), 1 - gate.mean_cosine


def _colour(decades: float) -> tuple[int, int, int]:
    """The colour of RAMP at so many decades above the bound; below its beginning it is the first colour."""
    for (low, first), (high, second) in pairwise(RAMP):
        if decades <= high:
            share = max(0.0, (decades - low) / (high - low))
            red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
            return red, green, blue
    raise ValueError(f"decades is {decades}, up to 0 is expected")


def draw_parity(rows: list[Row], precision: str, gate: Gate, path: Path) -> None:
    """Write a picture of one export's rows to `path`, coloured by the gate of its precision."""
    packs, outputs = list(dict.fromkeys(row.pack for row in rows)), list(dict.fromkeys(row.output for row in rows))
    width = 2 * MARGIN + LABELS + CELL * len(outputs)
    top = MARGIN + 4 * LINE
    height = top + LINE * len(packs) + 4 * LINE + MARGIN
    picture = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT_SIZE)
    is_relative = gate.max_relative_error is not None
    what = "largest error over RMS of the output" if is_relative else "1 - mean cosine of the token rows"
    draw.text((MARGIN, MARGIN), f"Parity with the original tower, {precision}", INK, ImageFont.load_default(20))
    draw.text((MARGIN, MARGIN + LINE + 6), f"{what}; gate: {gate}", PALE, font)
    for column, output in enumerate(outputs):
        middle = MARGIN + LABELS + CELL * column + CELL // 2
        short = output.replace("deepstack_embeds", "level ").replace("image_embeds", "main output")
        draw.text((middle, top - LINE // 2), short, INK, font, anchor="mm")
    for row in rows:
        left, line = MARGIN + LABELS + CELL * outputs.index(row.output), top + LINE * packs.index(row.pack)
        value, bound = _value(row, gate)
        decades = math.log10(value / bound) if 0 < value < math.inf else math.copysign(math.inf, value - bound)
        is_failed = not row.passes(gate)
        colour = FAILED if is_failed else _colour(min(decades, 0.0))
        draw.rectangle((left + 1, line + 1, left + CELL - 2, line + LINE - 2), colour)
        text = ("fails  " if is_failed else "") + (f"{value:.1e}" if value < math.inf else "not finite")
        draw.text((left + CELL // 2, line + LINE // 2), text, PAPER if is_failed else INK, font, anchor="mm")
    for number, pack in enumerate(packs):
        place = (MARGIN + LABELS - 12, top + LINE * number + LINE // 2)
        draw.text(place, pack, INK, font, anchor="rm")
    _legend(draw, top + LINE * len(packs) + LINE, _value(rows[0], gate)[1], width, font)
    picture.save(path, "PNG")


def _legend(
    draw: ImageDraw.ImageDraw, top: int, bound: float, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """The ramp with a label at every decade; the gate is its right end."""
    left, right, first = MARGIN + LABELS, width - MARGIN, RAMP[0][0]
    for x in range(left, right):
        decades = first * (1 - (x - left) / (right - left))
        draw.line((x, top, x, top + LINE // 2), _colour(decades))
    draw.line((right - 1, top - 5, right - 1, top + LINE // 2 + 5), INK, 2)
    draw.text((left, top + LINE), f"{bound * 10**first:.0e}", PALE, font, anchor="lm")
    draw.text((right, top + LINE), f"gate {bound:.0e}", INK, font, anchor="rm")
