"""How long one request may take, how long it may wait for a piece, and how long it may wait for a server that starts.

After an error of the network a client sends again only a request that never left, or that a server sent away before any
work: a server may have worked on any other.
"""

import time
from dataclasses import dataclass, field

from contract.errors import DeadlineExceeded, EdgeVlmError, InvalidInput, Unavailable

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0
MAX_WAIT_S = 365 * 86400.0  # what every clock below this client can hold
ELSEWHERE_S = 12.0  # a server that leaves is gone after this, whatever a balancer thinks
FULL = "Failed to increase the shared memory pool"  # Triton's words where /dev/shm is full: nothing was computed
LEAVING = "has no available versions"  # Triton's words for a model that it lets go of: it has computed nothing


def check_seconds(name: str, value: float, may_be_zero: bool = False) -> None:
    """Check a number of seconds that a caller gives.

    Raises:
        InvalidInput: it is no number above 0 (or from 0 on) and up to MAX_WAIT_S.
    """
    if not (0 < value <= MAX_WAIT_S or (may_be_zero and value == 0)):
        least = "from 0" if may_be_zero else "above 0"
        raise InvalidInput(f"{name} is {value}, a number of seconds {least} up to {MAX_WAIT_S:.0f} is expected")


@dataclass
class Patience:
    """The clock of one request; it starts when somebody makes this object.

    Attributes:
        url: the server's address, for error messages.
        timeout_s: the longest wait for the next piece, in seconds.
        deadline_s: the longest time for the whole answer, in seconds; None bounds only the waits.
        retry_s: how many seconds to keep trying while nobody listens.
        num_refused: how many servers sent the request away because they were about to leave.

    Raises:
        InvalidInput: deadline_s is no number of seconds from 0 to MAX_WAIT_S.
    """

    url: str
    timeout_s: float
    deadline_s: float | None
    retry_s: float
    num_refused: int = field(default=0, init=False)
    _begun: float = field(default_factory=time.monotonic, init=False)
    _pause_s: float = field(default=FIRST_PAUSE_S, init=False)

    def __post_init__(self) -> None:
        if self.deadline_s is not None:
            check_seconds("deadline_s", self.deadline_s, may_be_zero=True)

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None without a deadline."""
        return None if self.deadline_s is None else max(0.0, self._begun + self.deadline_s - time.monotonic())

    @property
    def wait_s(self) -> float:
        """The longest wait for the next piece from now, in seconds."""
        return self.timeout_s if (left_s := self.left_s) is None else min(self.timeout_s, left_s)

    def late(self) -> EdgeVlmError:
        """The error when the next piece does not come in time."""
        if self.left_s == 0:
            return DeadlineExceeded(f"{self.url}: the answer took longer than its deadline of {self.deadline_s} s")
        return Unavailable(f"{self.url} sent nothing for {self.timeout_s} s: raise timeout_s or look at the server")

    def lost(self, num_pieces: int, why: object) -> Unavailable:
        """The error when the connection breaks in the middle of an answer."""
        return Unavailable(
            f"{self.url} was lost after {num_pieces} pieces of the answer: {why}; the rest is gone, ask again"
        )

    def pause_s(self) -> float | None:
        """Seconds after which to try again when nobody listens; None when the time for that is over."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s if self._is_in_time(pause_s, self.retry_s) else None

    def elsewhere_s(self) -> float | None:
        """Seconds after which to try again when a server that is about to leave sends the request away, because another
        server may be there; None when the time for that is over."""
        self.num_refused += 1
        if self.num_refused == 1:
            return 0.0
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s if self._is_in_time(pause_s, max(self.retry_s, ELSEWHERE_S)) else None

    def _is_in_time(self, pause_s: float, longest_s: float) -> bool:
        passed_s = time.monotonic() - self._begun + pause_s
        return passed_s < longest_s and (self.deadline_s is None or passed_s < self.deadline_s)
