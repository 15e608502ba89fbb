"""The keys that the server probably holds: the client learns them from answers and forgets those it gets denied.

Behind a load balancer that knows no affinity, a key may reach a server that does not hold it; the client then pays a
round trip and the upload. Keys that miss more often than they hit cost more than none, so the client then stops sending
them.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from threading import Lock

MAX_KEYS = 4096
MAX_CREDIT = 8  # so many more misses than hits make keys useless


class HeldKeys(Collection[str]):
    """The keys in the server's last answers, at most max_keys; the oldest go first. Safe to share between threads."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys, self._credit = max_keys, MAX_CREDIT
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def is_useful(self) -> bool:
        """Whether it pays to send keys; once this is false, it stays false."""
        return self._credit > 0

    def add(self, keys: Iterable[str]) -> None:
        """Note keys that the server says it holds."""
        with self._lock:
            for key in filter(None, keys if self.is_useful else ()):
                self._keys[key] = None
                self._keys.move_to_end(key)
            while len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)

    def forget(self, keys: Iterable[str]) -> None:
        """Note keys that the server holds no more."""
        with self._lock:
            for key in keys:
                self._keys.pop(key, None)

    def hit(self) -> None:
        """Note that the server answers a request with keys."""
        with self._lock:
            if self.is_useful:
                self._credit = min(self._credit + 1, MAX_CREDIT)

    def miss(self) -> None:
        """Note that the server refuses a request because it does not hold a key."""
        with self._lock:
            self._credit = max(self._credit - 1, 0)
            if not self._credit:
                self._keys.clear()
