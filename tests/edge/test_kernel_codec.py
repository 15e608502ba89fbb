"""The compiled steps of ecq give numpy's bytes, whatever the library, the table and the values."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.codecs import ecq, native, rans
from contract.errors import InvalidInput
from edge_runtime.tower.kernels import supported
from tests.contract.test_codecs import numbers, rows

LIBRARIES = list(supported())


@pytest.fixture(autouse=True)
def numpy_again() -> Iterator[None]:
    before = native.native()
    yield
    native._loaded[:] = [before] if before is not None else []


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
@pytest.mark.parametrize(("count", "width"), [(1, 64), (9, 64), (100, 256), (300, 64)])
def test_streams_have_the_bytes_of_numpy(library: Path, count: int, width: int) -> None:
    known, true = numbers(1, width), rows(count, 4, 20, width)  # loud channels: many values outside the table
    true[1, 0], true[2, -1, 5], true[3, -1, -1] = 0, 9e6, -9e6
    native.load(None)
    stream, steps = ecq.encode(true[0], true[1:], known)
    expected = ecq.decode(stream, steps, known)
    native.load(library)
    assert native.native() is not None
    found, found_steps = ecq.encode(true[0], true[1:], known)
    np.testing.assert_array_equal(found, stream)
    np.testing.assert_array_equal(found_steps, steps)
    for got, value in zip(ecq.decode(stream, steps, known), expected, strict=True):
        np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_words_and_states_are_those_of_numpy_for_any_table(library: Path) -> None:
    random = np.random.default_rng(6)
    for count in (1, 255, 5000, 70_000):
        for skew in (0.0, 12.0, 40.0):
            shares = np.exp(-skew * random.random(256))
            table = np.maximum(1, np.floor(shares / shares.sum() * rans.TOTAL * 0.9)).astype(np.uint32)
            table[random.integers(256)] += rans.TOTAL - table.sum()
            tables = np.stack([table, table[::-1]])
            pairs = random.integers(0, 256, (2, count)).astype(np.uint8)  # rare ones are common: many words
            native.load(None)
            states, words = rans.encode(pairs, tables)
            native.load(library)
            for one, other in zip(rans.encode(pairs, tables), (states, words), strict=True):
                np.testing.assert_array_equal(one, other)
            got, used = rans.decode(states, words, count, tables)
            np.testing.assert_array_equal(got, pairs)
            assert used == len(words)
            if len(words):
                with pytest.raises(InvalidInput, match="ends early"):
                    rans.decode(states, words[:-1], count, tables)


def test_a_library_that_is_none_leaves_numpy(tmp_path: Path) -> None:
    path = tmp_path / "libedge_vlm.so"
    path.write_bytes(b"no library")
    native.load(path)
    assert native.native() is None
