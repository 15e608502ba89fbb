"""The open connections that no request uses now; the client keeps them for the next request, because a new one costs
round trips, and more of them with TLS.

Their number and age have bounds. The client closes a connection before a load balancer on its way cuts it (haproxy
after 50 s, nginx after 75 s in their usual configurations).
"""

import time
from collections import deque
from threading import Lock, Timer
from typing import Generic, Protocol, TypeVar

MAX_IDLE = 16
IDLE_S = 45.0


class Closable(Protocol):
    """An object with a `close` to call."""

    def close(self) -> object: ...


T = TypeVar("T", bound=Closable)


class Idle(Generic[T]):
    """The idle connections of one client. Safe to share between threads.

    Args:
        max_idle: keep at most this many; close a further one at once.
        idle_s: close a connection that no request has used for this many seconds.
    """

    def __init__(self, max_idle: int = MAX_IDLE, idle_s: float = IDLE_S) -> None:
        self._max_idle, self._idle_s = max_idle, idle_s
        self._kept: deque[tuple[float, T]] = deque()  # since when, and what; the longest unused first
        self._timer: Timer | None = None
        self._is_closed = False
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> T | None:
        """The connection that a request used last; None where none is idle."""
        with self._lock:
            return self._kept.pop()[1] if self._kept else None

    def give(self, one: T) -> None:
        """Take a connection back when its request is over."""
        with self._lock:
            is_kept = not self._is_closed and len(self._kept) < self._max_idle
            if is_kept:
                self._kept.append((time.monotonic(), one))
                self._watch()
        if not is_kept:
            one.close()

    def drop(self) -> None:
        """Close every idle connection: the server is away, or the client is done."""
        with self._lock:
            dropped, timer = list(self._kept), self._timer
            self._kept.clear()
            self._timer = None
        if timer is not None:
            timer.cancel()
        for _, one in dropped:
            one.close()

    def close(self) -> None:
        """Drop all, and keep none from now on."""
        self._is_closed = True
        self.drop()

    def _watch(self) -> None:
        """Set a timer for the longest unused connection. The caller holds the lock."""
        if self._timer is None and self._kept:
            wait_s = max(0.0, self._kept[0][0] + self._idle_s - time.monotonic())
            self._timer = Timer(wait_s, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        expired = []
        with self._lock:
            latest = time.monotonic() - self._idle_s
            while self._kept and self._kept[0][0] <= latest:
                expired.append(self._kept.popleft()[1])
            self._timer = None
            self._watch()
        for one in expired:
            one.close()
