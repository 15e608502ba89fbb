"""Attention in integers and in float32 against numpy."""

from pathlib import Path

import numpy as np
import pytest

from tests.edge.kernel_sessions import every_kernel, every_way, session
from tests.edge.operators import ATTENTION, RNG, SOME_STEPS, alike, attention, close, floats, rounding


@every_way
@pytest.mark.parametrize("loudness", [1.0, 6.0])
@pytest.mark.parametrize(("frames", "hw", "heads", "dim"), [(1, 1, 2, 64), (3, 4, 2, 16), (1, 63, 1, 72), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 64), (2, 1030, 1, 32)])  # fmt: skip
def test_attention_within_frames(
    library: Path | None, frames: int, hw: int, heads: int, dim: int, loudness: float
) -> None:
    packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
    packed[:, : 2 * heads * dim] *= np.sqrt(loudness)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    one = session("FrameAttention", ATTENTION, {}, library, num_heads=heads, scale=dim**-0.5)
    shape = np.array([frames, hw, 3 * heads * dim])
    got = one.run(None, {"packed": packed, "shape": shape, "cosines": cosines, "sines": sines})[0]
    told = (packed, frames, heads, cosines, sines)
    if library is None:
        return close(got, attention(*told, None), 1e-4)
    alike(got, attention(*told, rounding(library)), SOME_STEPS)
    alike(got, attention(*told, None), 0.04)  # what bytes cost at worst, at loudness 6


@every_way
@pytest.mark.parametrize("loudness", [1.0, 30.0])
@pytest.mark.parametrize(("frames", "hw", "heads", "dim"), [(1, 1, 2, 64), (3, 4, 2, 16), (1, 63, 1, 72), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 80), (2, 1030, 1, 32), (1, 70, 1, 256), (1, 200, 1, 6)])  # fmt: skip
def test_attention_in_floats(library: Path | None, frames: int, hw: int, heads: int, dim: int, loudness: float) -> None:
    packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
    packed[:, : 2 * heads * dim] *= np.sqrt(loudness)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    one = session("FrameAttention32", ATTENTION, {}, library, num_heads=heads, scale=dim**-0.5)
    shape = np.array([frames, hw, 3 * heads * dim])
    got = one.run(None, {"packed": packed, "shape": shape, "cosines": cosines, "sines": sines})[0]
    close(got, attention(packed, frames, heads, cosines, sines, None), 3e-5 * loudness)


@every_way
@pytest.mark.parametrize("loudness", [40, 600, 1e4])
@pytest.mark.parametrize("row", [5, 130, 500])
def test_a_late_key_takes_all_in_floats(library: Path | None, row: int, loudness: float) -> None:
    """However far above what came before it: nothing overflows, nothing is lost."""
    hw, dim = 640, 64
    packed, ones = floats(hw, 3 * dim), np.ones((hw, dim // 2), np.float32)
    packed[:, dim : 2 * dim] *= 0.1
    packed[:, 0], packed[row, dim] = 1, loudness
    one = session("FrameAttention32", ATTENTION, {}, library, num_heads=1, scale=dim**-0.5)
    feeds = {"packed": packed, "shape": np.array([1, hw, 3 * dim]), "cosines": ones, "sines": 0 * ones}
    close(one.run(None, feeds)[0], attention(packed, 1, 1, ones, 0 * ones, None), 1e-4)


@every_kernel
@pytest.mark.parametrize(
    "trouble",
    ["a loud channel", "keys far from zero", "one key that all look at", "a late key that leaves nothing to others"],
)
def test_attention_survives_what_integers_find_hard(library: Path, trouble: str) -> None:
    hw, dim = 640, 64
    packed, ones = floats(hw, 3 * dim), np.ones((hw, dim // 2), np.float32)  # of cosines: nothing is turned
    if trouble == "a loud channel":
        packed[:, [3, dim + 3]] *= 8  # of queries and keys
    elif trouble == "keys far from zero":
        packed[:, dim : 2 * dim] += 10 * floats(dim)
    else:
        packed[:, dim : 2 * dim] *= 0.1
        row, loudness = (5, 40) if trouble.startswith("one") else (500, 600)
        packed[:, 0], packed[row, dim] = 1, loudness
    one = session("FrameAttention", ATTENTION, {}, library, num_heads=1, scale=dim**-0.5)
    feeds = {"packed": packed, "shape": np.array([1, hw, 3 * dim]), "cosines": ones, "sines": 0 * ones}
    alike(one.run(None, feeds)[0], attention(packed, 1, 1, ones, 0 * ones, None), 0.05)
