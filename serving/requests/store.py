"""A store of pictures and videos by content, so that the next question about one sends its name instead of its rows.

The store is bounded in bytes; the items that were unused longest go first. It keeps rows as they travelled: fp16 takes
half the memory of fp32, int8 a quarter, and nobody has to hash them again for the name.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import NotFound, shown
from contract.items import ItemTensors
from serving.requests.shared_store import SharedStore


@dataclass(frozen=True)
class ReuseStats:
    """Bytes kept now, and since the start: keys found, keys missed, and bytes that did not travel thanks to keys."""

    reuse_bytes: int = 0
    num_reuse_hits: int = 0
    num_reuse_misses: int = 0
    reuse_saved_bytes: int = 0


class ReuseStore:
    """Items by key. Safe to share between threads.

    Args:
        max_bytes: memory the rows may take; 0 keeps nothing.
        shared: a store behind this one, which other servers share; None for none.
    """

    def __init__(self, max_bytes: int, shared: SharedStore | None = None) -> None:
        self._shared = shared
        self._items: OrderedDict[str, ItemTensors] = OrderedDict()
        self._max_bytes, self._stats = max_bytes, ReuseStats()
        self._lock = threading.Lock()

    def find(self, key: str) -> ItemTensors:
        """The item of a key, which counts as used.

        Raises:
            NotFound: neither this store nor the shared one holds it, or holds it any more.
        """
        item = self._own(key)
        if item is None and self._shared is not None and (item := self._shared.get(key)) is not None:
            self._add(item)
        with self._lock:
            if item is None:
                self._count(num_reuse_misses=1)
                raise NotFound(
                    f"vision_keys has {shown(key)}, which this server does not hold: send the item's tensors",
                    check="key-unknown",
                )
            self._count(num_reuse_hits=1, reuse_saved_bytes=item.num_bytes)
            return item

    def _own(self, key: str) -> ItemTensors | None:
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                self._items.move_to_end(key)
            return item

    def keep(self, items: Iterable[ItemTensors]) -> list[str]:
        """Keep items and return their keys; an empty one where an item is larger than the store.

        This hashes and copies, which takes time, so it belongs in a thread beside the request's own work.
        """
        return [item.key if self._keep(item) else "" for item in items]

    def close(self) -> None:
        """Let go of the shared store."""
        if self._shared is not None:
            self._shared.close()

    def stats(self) -> ReuseStats:
        """Counters of this moment."""
        with self._lock:
            return self._stats

    def _keep(self, item: ItemTensors) -> bool:
        if item.num_bytes > self._max_bytes:
            return False
        key = item.key  # outside of the lock, because this hashes
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return True
        own = replace(item, arrays=(_owned(item.arrays[0]), _owned(item.arrays[1])))
        self._add(own)
        if self._shared is not None:
            self._shared.put(own)
        return True

    def _add(self, own: ItemTensors) -> None:
        """Take an item in, and let the longest unused go for it."""
        if own.num_bytes > self._max_bytes:
            return
        key = own.key
        with self._lock:
            if self._items.setdefault(key, own) is own:
                self._count(reuse_bytes=own.num_bytes)
            while self._stats.reuse_bytes > self._max_bytes:
                _, oldest = self._items.popitem(last=False)
                self._count(reuse_bytes=-oldest.num_bytes)

    def _count(self, **added: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in added.items()})


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    """The array, copied where it is a piece of a larger one that it would keep alive."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    return array if whole.nbytes == array.nbytes and array.flags.c_contiguous else array.copy()
