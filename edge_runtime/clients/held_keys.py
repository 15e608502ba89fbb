"""What a client believes its server to hold: learned from the keys the server answered, forgotten where it says no."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from threading import Lock

MAX_KEYS = 4096


class HeldKeys(Collection[str]):
    """The keys answered last, so many that a server's memory is over before this list is. Safe to share."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in filter(None, keys):
                self._keys[key] = None
                self._keys.move_to_end(key)
            while len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)

    def forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._keys.pop(key, None)
