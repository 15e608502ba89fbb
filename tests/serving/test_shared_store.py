"""The shared store against a real Redis: what comes back equals what went in; away, damaged or slow it costs nothing."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidInput, NotFound
from contract.items import ItemTensors
from contract.rows import RowMasks
from serving.requests.shared_store import PREFIX, SharedStore, packed, unpacked
from serving.requests.store import ReuseStore
from serving.settings import Settings
from tests.edge.ways import free_port
from tests.serving.test_store import SIZE, item
from tests.waiting import wait_for

REDIS = shutil.which("redis-server")
with_redis = pytest.mark.skipif(REDIS is None, reason="apt-get install redis-server (make test-scale does)")


def coded() -> ItemTensors:
    values = np.random.default_rng(5).integers(-127, 127, (3, 4, 8), np.int8)
    return ItemTensors("f", True, (2, 2, 4), (values, np.ones((3, 4), np.float16)), "int8c:abc")


def masked() -> ItemTensors:
    """A clip of two frames whose second one repeats the first but for a dropped row."""
    kept = np.array([[True, True], [True, False]])
    masks = RowMasks(kept, np.array([[False, False], [True, False]]))
    rows = np.arange(16, dtype=np.float16).reshape(2, 8), np.ones((3, 2, 8), np.float16)
    return ItemTensors("f", True, (2, 2, 4), rows, masks=masks)


def test_masks_travel_with_their_rows() -> None:
    before = masked()
    after = unpacked(packed(before))
    assert after.key == before.key
    assert after.masks is not None
    main, levels = after.floats(None)
    np.testing.assert_array_equal(main, before.arrays[0][[0, 1, 0]])
    np.testing.assert_array_equal(levels, before.arrays[1][:, [0, 1, 0]])


def test_numbers_of_another_server_are_not_guessed() -> None:
    """The item of a store that servers with unlike codec numbers share: the error asks the client for its tensors."""
    with pytest.raises(NotFound, match="int8c:abc"):
        coded().floats(None)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    line = [str(REDIS), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("one", [item(0), coded()], ids=["floats", "coded"])
def test_an_item_comes_back_as_it_was(one: ItemTensors) -> None:
    back = unpacked(packed(one))
    assert (back.fingerprint, back.is_video, back.grid_thw, back.codec) == (
        one.fingerprint,
        one.is_video,
        one.grid_thw,
        one.codec,
    )
    for got, want in zip(back.arrays, one.arrays, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert back.key == one.key


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"grid_thw": [1, 2]}\n',
        packed(item(0))[:-1],
        packed(item(0)) + b"x",
        packed(item(0)).replace(b"float16", b"object_"),
        packed(item(0)).replace(b"[4, 8]", b"[4, -8]"),
    ],
)
def test_a_damaged_value_is_no_item(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpacked(value)


BAD = (None, True, -1, 0, 2.5, 1e300, 10**400, "", "x", [], [[]], {}, {"a": 1}, [1], [1, 2], [1, 2, "a"], [0, 2, 4], [1, 2, 1 << 40],
       [["float16", [64]], ["float16", [64]]], [["float16", [4, 16]], ["float16", []]], [["bool", [-1]]], [["float16", [1 << 70]]])  # fmt: skip


@pytest.mark.parametrize("one", [item(0), coded(), masked()], ids=["floats", "coded", "masked"])
def test_a_value_of_another_version_is_no_item_or_one_with_a_key(one: ItemTensors) -> None:
    """Whatever stands in the store, a request that asks for it is told that the key is unknown."""
    line, _, rest = packed(one).partition(b"\n")
    head, num_items = json.loads(line), 0
    heads = [head | {name: bad} for name in head for bad in BAD]
    heads += [head | {"seconds": bad} for bad in BAD] + [{n: v for n, v in head.items() if n != name} for name in head]
    values = [json.dumps(one).encode() + b"\n" + rest for one in heads] + [b"[" * 100_000 + b"\n" + rest, line]
    for value in values:
        try:
            found = unpacked(value)
        except ValueError:
            continue
        assert len(found.key) == 64
        assert found.num_rows > 0
        num_items += 1
    assert 0 < num_items < len(values) / 4  # what differs in the name alone


@with_redis
def test_what_one_server_keeps_another_finds(url: str) -> None:
    one, two = ReuseStore(1 << 20, SharedStore(url)), ReuseStore(1 << 20, SharedStore(url))
    (key,) = one.keep([item(0)])
    one.close()  # writes what waits
    found = two.find(key)
    np.testing.assert_array_equal(found.arrays[0], item(0).arrays[0])
    assert two.stats().num_reuse_hits == 1
    assert two.stats().reuse_bytes == SIZE  # in its own memory from now on
    with pytest.raises(NotFound):
        two.find("0" * 64)
    two.close()


@with_redis
def test_it_leaves_after_its_time_and_too_large_items_stay_out(url: str) -> None:
    store = SharedStore(url, ttl_s=100, max_item_bytes=SIZE)
    small, large = item(0), item(1, rows=8)
    store.put(large)
    store.put(small)  # written behind the other
    wait_for(lambda: store.get(small.key) is not None)
    assert store.get(large.key) is None
    assert 0 < store._client.ttl(PREFIX + small.key) <= 100  # seconds until Redis takes it away
    store.close()


@with_redis
def test_another_content_under_a_key_is_refused(url: str) -> None:
    store = SharedStore(url)
    store._client.set(PREFIX + item(0).key, packed(item(1)))
    assert store.get(item(0).key) is None
    store.close()


def test_a_store_that_is_away_is_asked_once_and_then_left_alone() -> None:
    store = ReuseStore(1 << 20, SharedStore(f"redis://127.0.0.1:{free_port()}/0"))
    (key,) = store.keep([item(0)])
    assert store.find(key).key == key
    started = time.monotonic()
    for _ in range(50):
        with pytest.raises(NotFound):
            store.find("0" * 64)
    assert time.monotonic() - started < 2
    store.close()


def test_a_silent_store_costs_a_request_its_timeout_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = SharedStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        started = time.monotonic()
        for _ in range(20):
            assert store.get("0" * 64) is None
        assert time.monotonic() - started < 6
        store.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="redis://"):
        Settings("folder", reuse_store=url)
    with pytest.raises(InvalidInput, match="redis://"):
        SharedStore(url)
