"""What a client believes its server to hold: learned from the keys the server answered, forgotten where it says no.

Behind a balancer that knows no affinity, a key reaches a server that does not hold it, which costs a round trip and the
upload. Keys that miss more often than they hit are dearer than none, so then the client stops sending them.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from threading import Lock

MAX_KEYS = 4096
MAX_CREDIT = 8  # so many more misses than hits end it


class HeldKeys(Collection[str]):
    """The keys answered last, so many that a server's memory is over before this list is. Safe to share."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys, self._credit = max_keys, MAX_CREDIT
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def is_useful(self) -> bool:
        """Whether keys are worth sending; once they are not, this stays."""
        return self._credit > 0

    def add(self, keys: Iterable[str]) -> None:
        """Note what the server answered that it holds."""
        with self._lock:
            for key in filter(None, keys if self.is_useful else ()):
                self._keys[key] = None
                self._keys.move_to_end(key)
            while len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)

    def forget(self, keys: Iterable[str]) -> None:
        """Note what it holds no more."""
        with self._lock:
            for key in keys:
                self._keys.pop(key, None)

    def hit(self) -> None:
        """A request with keys was answered."""
        with self._lock:
            if self.is_useful:
                self._credit = min(self._credit + 1, MAX_CREDIT)

    def miss(self) -> None:
        """A request with keys was sent away for them."""
        with self._lock:
            self._credit = max(self._credit - 1, 0)
            if not self._credit:
                self._keys.clear()
