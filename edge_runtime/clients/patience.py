"""How long one request may take, how long it may wait for a piece, and how long for somebody to listen.

Only a request that never left is sent again for the network's sake: one that reached a server may have been answered.
"""

import time
from dataclasses import dataclass, field

from contract.errors import DeadlineExceeded, EdgeVlmError, Unavailable

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0


@dataclass
class Patience:
    """Counts from its making.

    Attributes:
        timeout_s: longest wait for the next piece.
        deadline_s: longest time for the whole answer; None leaves only the waits bounded.
        retry_s: how long to keep trying while nobody listens.
    """

    url: str
    timeout_s: float
    deadline_s: float | None
    retry_s: float
    _begun: float = field(default_factory=time.monotonic, init=False)
    _pause_s: float = field(default=FIRST_PAUSE_S, init=False)

    @property
    def left_s(self) -> float | None:
        """Time until the deadline, from 0; None without one."""
        return None if self.deadline_s is None else max(0.0, self._begun + self.deadline_s - time.monotonic())

    @property
    def wait_s(self) -> float:
        """Longest wait for the next piece, from now."""
        return self.timeout_s if (left_s := self.left_s) is None else min(self.timeout_s, left_s)

    def late(self) -> EdgeVlmError:
        """The error when that wait has passed."""
        if self.left_s == 0:
            return DeadlineExceeded(f"{self.url}: the answer took longer than its deadline of {self.deadline_s} s")
        return Unavailable(f"{self.url} sent nothing for {self.timeout_s} s: raise timeout_s or look at the server")

    def lost(self, num_pieces: int, why: object) -> Unavailable:
        """The error when the connection breaks in the middle of an answer."""
        return Unavailable(
            f"{self.url} was lost after {num_pieces} pieces of the answer: {why}; the rest is gone, ask again"
        )

    def pause_s(self) -> float | None:
        """Seconds after which to try again when nobody listened; None when the time for that is over."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LAST_PAUSE_S)
        passed_s = time.monotonic() - self._begun + pause_s
        is_in_time = self.deadline_s is None or passed_s < self.deadline_s
        return pause_s if is_in_time and passed_s < self.retry_s else None
