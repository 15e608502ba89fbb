"""A device that does one thing otherwise is found by a gate: nothing is published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import ParityError
from edge_runtime.items import tiles, unpad
from edge_runtime.prompts import prompt
from export.vision import export_vision
from tests.conftest import ROOT
from tests.families.models import ALL, write

Mutate = Callable[[pytest.MonkeyPatch], None]


def transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles stand column by column."""
    cut = tiles.cut

    def wrong(pixels: Any, side: int) -> Any:
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        parts = cut(pixels, side)
        return parts.reshape(rows, columns, *parts.shape[1:]).swapaxes(0, 1).reshape(parts.shape)

    monkeypatch.setattr(tiles, "cut", wrong)


def without_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_runtime.families import internvl

    canvas = tiles.canvas
    monkeypatch.setattr(internvl, "canvas", lambda image, how: canvas(image, how)[: -1 or None])


def black_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile that shows the whole picture shows nothing."""
    from edge_runtime.families import llava_next

    def wrong(image: Any, how: Any) -> Any:
        parts = tiles.anyres(image, how)
        return np.concatenate([parts[:1] * 0, parts[1:]])

    monkeypatch.setattr(llava_next, "anyres", wrong)


def without_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are there, the learned ones are nothing."""
    unpadded = unpad.unpadded
    for name in ("llava_next", "llava_onevision"):
        module = __import__(f"edge_runtime.families.{name}", fromlist=["unpadded"])
        monkeypatch.setattr(
            module,
            "unpadded",
            lambda rows, height, width, how, newline: unpadded(rows, height, width, how, np.zeros_like(newline)),
        )


def unpadded_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line, or a column, too far; as many rows as are right."""
    original = unpad._unpadded

    def wrong(height: int, width: int, how: Any) -> tuple[int, int, int, int]:
        lines, columns, top, left = original(height, width, how)
        return lines, columns, max(top - 1, 0), max(left - 1, 0)

    monkeypatch.setattr(unpad, "_unpadded", wrong)


def without_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "with_around", lambda ids, *_: ids)


def never_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_runtime.families import llava_onevision

    monkeypatch.setattr(llava_onevision, "mode", lambda _: llava_onevision.ALONE)


BUNDLED = "models/tiny-tiles"  # a checkpoint, no family whose weights are drawn
CASES: dict[str, tuple[str, Mutate, str]] = {
    "tiles transposed (NeXT)": ("llava_next", transposed, "otherwise than transformers: pixels"),
    "tiles transposed (InternVL)": ("internvl", transposed, "otherwise than transformers: pixels"),
    "tiles transposed (SmolVLM)": ("smolvlm", transposed, "otherwise than transformers: pixels"),
    "thumbnail dropped": ("internvl", without_thumbnail, r"\d+ tiles here, \d+ there"),
    "newline lost (NeXT)": ("llava_next", without_newline, "in another order than transformers"),
    "newline lost (OneVision)": ("llava_onevision", without_newline, "in another order than transformers"),
    "unpad off by one": ("llava_next", unpadded_by_one, "in another order than transformers"),
    "BOS lost": ("llava", without_start, "differs from transformers'"),
    "tiles transposed (bundled)": (BUNDLED, transposed, "otherwise than transformers: pixels"),
    "whole picture black (bundled)": (BUNDLED, black_whole_picture, "otherwise than transformers: pixels"),
    "newline lost (bundled)": (BUNDLED, without_newline, "in another order than transformers"),
    "unpad off by one (bundled)": (BUNDLED, unpadded_by_one, "in another order than transformers"),
    "BOS lost (bundled)": (BUNDLED, without_start, "differs from transformers'"),
    "several pictures tiled": ("llava_onevision", never_alone, "differs from transformers'"),
}


SAMPLE = ("tiles transposed (SmolVLM)", "newline lost (NeXT)", "several pictures tiled")
TESTED = tuple(CASES) if ALL else SAMPLE


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    families = sorted({CASES[name][0] for name in TESTED} - {BUNDLED})
    return {family: write(family, folder / family) for family in families} | {BUNDLED: ROOT / BUNDLED}


@pytest.mark.parametrize("name", TESTED)
def test_a_gate_finds_it(name: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, mutate, found = CASES[name]
    mutate(monkeypatch)
    with pytest.raises(ParityError, match=found):
        export_vision(str(models[family]), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
