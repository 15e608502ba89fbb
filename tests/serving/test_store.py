"""The reuse store alone: bounded, the longest unused first, nothing of a request kept alive, safe from many threads."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contract.codecs.codec import CODECS
from contract.errors import NotFound
from contract.items import ItemTensors
from serving.requests.store import ReuseStore
from tests.contract.test_codecs import numbers


def item(seed: int, rows: int = 4) -> ItemTensors:
    values = np.random.default_rng(seed).standard_normal((3, rows, 8)).astype(np.float16)
    return ItemTensors("f", False, (1, 2, 2 * rows), (values[0].copy(), values[1:].copy()))


SIZE = item(0).num_bytes


def test_the_longest_unused_goes_first() -> None:
    store = ReuseStore(3 * SIZE)
    keys = store.keep([item(0), item(1), item(2)])
    assert len(set(keys)) == 3
    store.find(keys[0])
    store.keep([item(3)])
    with pytest.raises(NotFound, match=keys[1]):
        store.find(keys[1])
    assert store.find(keys[0]).key == keys[0]
    stats = store.stats()
    assert (stats.reuse_bytes, stats.num_reuse_hits, stats.num_reuse_misses) == (3 * SIZE, 2, 1)
    assert stats.reuse_saved_bytes == 2 * SIZE


def test_the_same_content_is_kept_once_and_counts_as_used() -> None:
    store = ReuseStore(2 * SIZE)
    first, second = store.keep([item(0), item(1)])
    assert store.keep([item(0)]) == [first]
    assert store.stats().reuse_bytes == 2 * SIZE
    store.keep([item(2)])
    assert store.find(first).key == first
    with pytest.raises(NotFound):
        store.find(second)


def test_what_is_larger_than_the_store_has_no_key() -> None:
    assert ReuseStore(SIZE - 1).keep([item(0)]) == [""]
    assert ReuseStore(0).keep([item(0)]) == [""]


def test_a_piece_of_a_request_does_not_keep_the_rest_of_it() -> None:
    packed = np.zeros((10_000, 3, 8), np.float16)
    arrays = packed[:4, 0], packed[:4, 1:].transpose(1, 0, 2)
    store = ReuseStore(1 << 20)
    (key,) = store.keep([ItemTensors("f", False, (1, 2, 8), arrays)])
    kept = store.find(key)
    assert all(array.base is None and array.flags.c_contiguous for array in kept.arrays)
    assert kept.key == key == ItemTensors("f", False, (1, 2, 8), kept.arrays).key


def test_items_are_kept_as_they_travelled() -> None:
    """How many items a store of one size holds: decoded they would be as many as in fp32, whatever travelled."""
    random, known = np.random.default_rng(3), numbers(1, 256)
    pictures = random.standard_normal((80, 4, 60, 256)).astype(np.float32)  # (pictures, 1+L, n, H)
    store_bytes = 5 * pictures[0].nbytes

    def held(name: str) -> int:
        store, keys = ReuseStore(store_bytes), list[str]()
        for picture in pictures:
            main, deepstack = picture[0], picture[1:]
            if name in CODECS:
                sent = CODECS[name].encode(main, deepstack, known)
            else:
                sent = main.astype(name), deepstack.astype(name)
            keys += store.keep([ItemTensors("f", False, (1, 12, 20), sent, known.names.get(name, ""))])
        num_held = 0
        for key in keys:
            with contextlib.suppress(NotFound):
                found = store.find(key)
                assert found.num_bytes == sum(array.nbytes for array in sent) or name in ("ecq", "klt")
                assert all(array.dtype != np.float32 for array in found.arrays) or name == "float32"
                num_held += 1
        return num_held

    found = {name: held(name) for name in ("float32", "float16", "int8c", "int4", "ecq")}
    assert found["float32"] == 5
    assert found["float16"] == 10
    assert found["int8c"] >= 19  # of the steps
    assert found["int4"] >= 38
    assert found["ecq"] >= 50


def test_many_threads() -> None:
    store, start = ReuseStore(20 * SIZE), threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for i in range(200):
            (key,) = store.keep([item((seed + i) % 40)])
            with contextlib.suppress(NotFound):  # pushed out meanwhile
                assert store.find(key).key == key

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.stats().reuse_bytes == 20 * SIZE
