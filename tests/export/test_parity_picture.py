"""parity.png: the same rows give the same bytes, and a failed comparison is red."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contract.manifest import PRECISIONS
from export.gate.packs import ALWAYS, name
from export.gate.parity import Row
from export.gate.picture import CELL, FAILED, LABELS, LINE, MARGIN, draw_parity
from export.precision import BY_NAME

OUTPUTS = ("image_embeds", "deepstack_embeds[0]", "deepstack_embeds[1]")
GOOD = Row("", "", 1.0, 1e-7, 1e-7, 0.9999999, 0.9999999)
ROWS = [replace(GOOD, pack=name(pack), output=output) for pack in ALWAYS for output in OUTPUTS]


def colours(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_rows_same_bytes(tmp_path: Path, precision: str) -> None:
    assert all(row.passes(BY_NAME[precision].gate) for row in ROWS)
    for file in ("a.png", "b.png"):
        draw_parity(ROWS, precision, BY_NAME[precision].gate, tmp_path / file)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert FAILED not in colours(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * MARGIN + LABELS + CELL * len(OUTPUTS), 2 * MARGIN + LINE * (len(ALWAYS) + 8))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "bad",
    [
        replace(ROWS[4], max_abs_error=9.0, relative_error=9.0, min_cosine=0.1, mean_cosine=0.1),
        replace(ROWS[4], max_abs_error=None, relative_error=None, min_cosine=None, mean_cosine=None),
    ],
)
def test_a_failed_comparison_is_red(tmp_path: Path, precision: str, bad: Row) -> None:
    draw_parity([*ROWS[:4], bad, *ROWS[5:]], precision, BY_NAME[precision].gate, tmp_path / "a.png")
    assert FAILED in colours(tmp_path / "a.png")


def test_an_error_of_zero_is_drawn(tmp_path: Path) -> None:
    draw_parity(
        [replace(row, relative_error=0.0, mean_cosine=1.0) for row in ROWS],
        "fp32",
        BY_NAME["fp32"].gate,
        tmp_path / "a.png",
    )
    draw_parity(
        [replace(row, mean_cosine=1.0 + 1e-16) for row in ROWS], "int8", BY_NAME["int8"].gate, tmp_path / "b.png"
    )
    assert FAILED not in colours(tmp_path / "a.png") | colours(tmp_path / "b.png")
