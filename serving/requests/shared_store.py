"""Pictures and videos that several servers share through Redis or Valkey, so that any of them answers any key.

No request depends on it: a store that is away, slow or full only means that a client sends an item again. A server
writes behind the requests, and asks only when its own memory does not hold a key. An item is one value under its key: a
line of JSON, then the bytes of its two arrays as they travelled and of its masks. A server trusts what comes back as
far as its hash goes: the key is the SHA-256 of the content.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from contract.errors import InvalidInput, MissingExtra, shown
from contract.grids import MAX_SIDE
from contract.items import ItemTensors
from contract.rows import RowMasks

PREFIX = "edge-vlm:1:"
DTYPES = ("float16", "float32", "int8", "uint8", "bool")
TTL_S = 24 * 3600
MAX_ITEM_BYTES = 64 << 20
MAX_WAITING = 64  # items to be written; `put` drops further ones
CONNECT_S, ANSWER_S = 0.2, 1.0  # a request waits no longer for the store
REST_S = 5.0  # after a failure a server leaves the store alone for this long
SCHEMES = ("redis://", "rediss://", "unix://")

log = logging.getLogger(__name__)


def packed(item: ItemTensors) -> bytes:
    """An item as the store keeps it."""
    head = {
        "fingerprint": item.fingerprint,
        "is_video": item.is_video,
        "grid_thw": list(map(int, item.grid_thw)),
        "codec": item.codec,
        "arrays": [[array.dtype.name, list(array.shape)] for array in item.arrays],
        "masks": list(item.masks.kept.shape) if item.masks is not None else None,
    }
    if item.seconds is not None:
        head["seconds"] = item.seconds
    arrays = (*item.arrays, *(() if item.masks is None else (item.masks.kept, item.masks.copied)))
    return json.dumps(head).encode() + b"\n" + b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def unpacked(value: bytes) -> ItemTensors:
    """The item of a value that `packed` made.

    Raises:
        ValueError: the value is not of this form.
    """
    line, _, rest = value.partition(b"\n")
    try:
        head = json.loads(line)
        (t, h, w), specs, shape = head["grid_thw"], head["arrays"], head.get("masks")
        if shape is not None:
            specs = [*specs, ["bool", shape], ["bool", shape]]
        arrays, start = [], 0
        for name, sides in specs:
            if name not in DTYPES or not all(type(side) is int and side >= 0 for side in sides):
                raise ValueError(f"an array of {name!r} {sides}")
            dtype = np.dtype(name)
            num_bytes = dtype.itemsize * int(np.prod(sides, dtype=object))
            arrays.append(np.frombuffer(rest[start : start + num_bytes], dtype).reshape(sides))
            start += num_bytes
        first, second, *masks = arrays
        if start != len(rest):
            raise ValueError(f"{len(rest)} bytes of arrays, {start} are expected")
        rows = RowMasks(*masks) if masks else None
        seconds = None if head.get("seconds") is None else float(head["seconds"])
        facts = (head["fingerprint"], bool(head["is_video"]), (t, h, w))
        item = ItemTensors(*facts, (first, second), head["codec"], rows, seconds)
        _check_form(item)
        return item
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _check_form(item: ItemTensors) -> None:
    """Raise ValueError where an item is none that a request could have brought."""
    first, second = item.arrays
    if not all(isinstance(text, str) for text in (item.fingerprint, item.codec)):
        raise ValueError(f"fingerprint {shown(item.fingerprint)} and codec {shown(item.codec)}")
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in item.grid_thw):
        raise ValueError(f"a grid of {shown(item.grid_thw)}")
    if second.ndim not in (2, 3) or (first.ndim > 1 and first.shape[-2] != second.shape[1]):
        raise ValueError(f"arrays of {list(first.shape)} and {list(second.shape)}")
    masks = item.masks
    if masks is not None and (
        masks.kept.ndim != 2 or int(masks.is_sent.sum()) != second.shape[1] or masks.copied[:1].any()
    ):
        raise ValueError(f"masks of {list(masks.kept.shape)} for {second.shape[1]} rows")


class SharedStore:
    """A Redis or Valkey server by its URL. Safe to share between threads.

    Args:
        url: redis://host:6379/0, rediss:// for TLS, unix:// for a socket; user and password as usual.
        ttl_s: an item leaves the store so many seconds after a server wrote or read it last.
        max_item_bytes: servers do not share larger items. How much all may take is the store's own setting (maxmemory
            with allkeys-lru).

    Raises:
        InvalidInput: no such URL.
        MissingExtra: the package redis is not installed.
    """

    def __init__(self, url: str, *, ttl_s: int = TTL_S, max_item_bytes: int = MAX_ITEM_BYTES) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise MissingExtra("a shared reuse store", "server") from error
        self._ttl_s, self._max_item_bytes, self._failures = ttl_s, max_item_bytes, (redis.RedisError, OSError)
        try:
            self._client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=ANSWER_S)
        except ValueError as error:
            raise InvalidInput(f"reuse_store is no address: {error}; {', '.join(SCHEMES)} are expected") from error
        self._rest_until = 0.0
        self._waiting: queue.Queue[ItemTensors | None] = queue.Queue(MAX_WAITING)
        self._writer = threading.Thread(target=self._write, name="shared store", daemon=True)
        self._writer.start()

    def get(self, key: str) -> ItemTensors | None:
        """The item of a key; None where the store lacks it, does not answer, or holds another content there."""
        value = self._asked(lambda: self._client.getex(PREFIX + key, ex=self._ttl_s))
        if value is None:
            return None
        try:
            item = unpacked(value)
            if item.key != key:
                raise ValueError(f"its content has the key {item.key}")
        except ValueError as error:
            log.warning("the shared store's value of %s is left alone: %s", key, error)
            return None
        return item

    def put(self, item: ItemTensors) -> None:
        """Have a thread write an item behind the request; drops it when it is too large or too many wait."""
        if item.num_bytes <= self._max_item_bytes:
            with suppress(queue.Full):
                self._waiting.put_nowait(item)

    def close(self) -> None:
        """Write what waits, and end."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=ANSWER_S)
        self._writer.join(2 * ANSWER_S)
        self._client.close()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            name, value = PREFIX + item.key, packed(item)
            self._asked(lambda n=name, v=value: self._client.set(n, v, ex=self._ttl_s))  # type: ignore[misc]

    def _asked(self, call: Callable[[], Any]) -> Any:
        """The store's answer; None while it rests after a failure."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            return call()
        except self._failures as error:
            self._rest_until = time.monotonic() + REST_S
            log.warning("the shared store is left alone for %s s: %s", REST_S, error)
            return None
