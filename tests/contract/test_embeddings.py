"""Embeddings as they travel: what is finite, what quantising costs, what an item is called."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.codecs.int8 import HIGHEST, dequantise, quantise
from contract.embeddings import is_finite
from contract.items import ItemRows, ItemTensors, item_key
from contract.rows import RowMasks


def test_every_half_is_judged_as_numpy_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert [is_finite(halves[i : i + 1]) for i in range(1 << 16)] == np.isfinite(halves).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_bad_value_among_many(dtype: Any) -> None:
    values = np.random.default_rng(1).standard_normal((50, 30)).astype(dtype)
    assert is_finite(values)
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[17, 3] = bad
        assert not is_finite(broken)
    assert is_finite(values[:0])


def test_quantised_rows_are_within_half_a_step() -> None:
    main, deepstack = (np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(((9, 64), (3, 9, 64))))
    main[4] = 0
    main[5] *= 1e4
    values, scales = quantise(main, deepstack)
    assert (values.dtype, scales.dtype, values.shape, scales.shape) == (np.int8, np.float16, (4, 9, 64), (4, 9))
    steps = scales.astype(np.float32)[..., None]
    for found, true, step in zip(dequantise(values, scales), (main, deepstack), (steps[0], steps[1:]), strict=True):
        assert found.dtype == np.float32
        assert (np.abs(found - true) <= step * (0.5 + HIGHEST * 2**-11) + 1e-12).all()  # the scale was rounded, too
    np.testing.assert_array_equal(dequantise(values, scales)[0], values[0] * scales[0].astype(np.float32)[:, None])


def test_a_key_is_a_hash_of_what_travels_and_of_nothing_else() -> None:
    """Written out by hand, because clients in other languages compute it, too."""
    main, deepstack = np.arange(8, dtype=np.float16).reshape(2, 4), np.ones((1, 2, 4), np.float16)
    item = ItemRows(False, (1, 2, 4), slice(3, 5))
    head = b"edge-vlm 1 abc image (1, 2, 4) <f2[2, 4] <f2[1, 2, 4]\n"
    expected = hashlib.sha256(head + main.tobytes() + deepstack.tobytes()).hexdigest()
    assert item_key("abc", item, main, deepstack) == expected
    assert ItemTensors("abc", False, (1, 2, 4), (main, deepstack)).key == expected
    others = {
        item_key("abd", item, main, deepstack),
        item_key("abc", ItemRows(True, (1, 2, 4), item.rows), main, deepstack),
        item_key("abc", ItemRows(False, (1, 4, 2), item.rows), main, deepstack),
        item_key("abc", item, main + 1, deepstack),
        item_key("abc", item, main, deepstack + 1),
        item_key("abc", item, main.astype(np.float32), deepstack.astype(np.float32)),
    }
    assert len(others | {expected}) == 7


class SlowName(str):
    """A fingerprint whose hash begins on command."""

    def __new__(cls, name: str, go: threading.Event) -> Any:
        found = super().__new__(cls, name)
        found.go, found.num_hashes = go, 0
        return found

    def __format__(self, spec: str) -> str:
        assert self.go.wait(10)
        self.num_hashes += 1
        return str(self)


def test_an_item_is_hashed_once_and_holds_up_no_other() -> None:
    """Python 3.11's cached_property lets the second item wait for the first."""
    arrays = np.zeros((2, 4), np.float16), np.zeros((1, 2, 4), np.float16)
    go = threading.Event()
    slow = ItemTensors(SlowName("abc", go), False, (1, 2, 4), arrays)
    with ThreadPoolExecutor(3) as pool:
        keys = [pool.submit(lambda: slow.key) for _ in range(2)]
        other = pool.submit(lambda: ItemTensors("abc", False, (1, 2, 4), arrays).key)
        try:
            expected = other.result(5)
        finally:
            go.set()
        assert [key.result(5) for key in keys] == [expected, expected]
    assert replace(slow, arrays=(arrays[0].copy(), arrays[1].copy())).key == expected
    assert slow.fingerprint.num_hashes == 1


def test_masks_and_seconds_enter_the_key() -> None:
    """The same bytes of a video under other masks, or at another speed, are another item; so is a lost mask."""
    arrays = np.ones((4, 8), np.float16), np.ones((1, 4, 8), np.float16)
    kept, copied = np.ones((3, 2), np.bool_), np.zeros((3, 2), np.bool_)
    kept[1, 0] = kept[2, 1] = False
    copied[1:] = True
    both = RowMasks(np.ones_like(kept), copied), RowMasks(kept, np.zeros_like(copied))
    masks = (None, *both, RowMasks(kept[::-1], both[1].copied), RowMasks(kept, copied & kept))
    item = ItemTensors("abc", True, (3, 2, 4), arrays)
    known = [replace(item, masks=mask, seconds=time, _keys=[]) for mask in masks for time in (None, 0.5, 1.0)]
    assert len({one.key for one in known}) == len(known)
