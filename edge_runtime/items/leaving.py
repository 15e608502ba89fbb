"""A client as the code that works for it sees it: its name, and the moment when it goes away."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LeavingAsker:
    """Waits for an item until somebody calls `leave` (items.maker.Asker). Safe to share between threads."""

    def __init__(self, caller: bytes = b"") -> None:
        self.caller, self.has_left = caller, False
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    @contextmanager
    def told(self, leave: Callable[[], None]) -> Iterator[None]:
        """Inside the block, call `leave` when the client leaves; call it at once where the client left before."""
        with self._lock:
            self._calls.append(leave)
            has_left = self.has_left
        if has_left:
            leave()
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(leave)

    def leave(self) -> None:
        """End the work for the client: call what `told` has noted."""
        with self._lock:
            self.has_left, calls = True, list(self._calls)
        for call in calls:
            call()
