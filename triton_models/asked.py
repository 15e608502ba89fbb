"""A request of the vision model while its pictures decode: Triton says whether its caller is still there."""

import threading
from typing import Any

from edge_runtime.items.leaving import LeavingAsker
from triton_models.replies import FINAL


class Asked(LeavingAsker):
    """A request of this model, whose caller may leave before its answer."""

    def __init__(self, sender: Any) -> None:
        super().__init__()
        self._sender, self._sending, self._is_answered = sender, threading.Lock(), False

    def answer(self, response: Any) -> None:
        with self._sending:
            self._is_answered = True
            self._sender.send(response, flags=FINAL)

    def look(self) -> None:
        """Ask Triton whether the caller has left. It releases a request with its answer; a later look crashes it."""
        with self._sending:
            is_gone = not self._is_answered and bool(self._sender.is_cancelled())
        if is_gone:
            self.leave()
