"""A request that edge_vlm answers: Triton's sender, its deadline, and what it has still to send.

Triton takes a response from the model's process in a third of a millisecond, in which a loop that gave it would serve
nobody. So a thread gives it, one response of a request at a time. A response is what the engine gave at once, usually a
token. Where sending lags by more than a reader would notice, a response is all that waits.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from contract.errors import DeadlineExceeded, EdgeVlmError
from serving.engine import Delta
from serving.metrics import Timing
from serving.requests.answer import ERROR, Answer, nothing
from serving.requests.request import ParsedRequest
from triton_models.replies import FINAL, failure, outputs, unexpected

MERGE_AFTER_SECONDS = 0.05


class Job:
    """A request that edge_vlm answers. Its methods belong to the loop's thread, but for `is_abandoned`.

    parsed is None until `read` gets what the request asks for.
    """

    def __init__(self, request: Any, sender: Any, timeout_us: int, timing: Timing, thread: ThreadPoolExecutor) -> None:
        self.id: str = request.request_id()
        self.timing = timing
        self.parsed: ParsedRequest | None = None
        self.timeout_seconds = timeout_us / 1e6  # 0: none
        self.deadline = time.monotonic() + (self.timeout_seconds or math.inf)
        self.task: asyncio.Task[None] | None = None
        self.keys: Sequence[str] = ()
        self.num_tokens = 0
        self.is_ended = False  # its last delta was put
        self.is_left = False  # a reader of the request may stop
        self._sender, self._thread = sender, thread
        self._answer: Answer | None = None
        self._waiting: deque[tuple[float, Delta]] = deque()  # since when
        self._is_sending, self._lock = False, threading.Lock()
        self._error: EdgeVlmError | None = None
        self._is_released, self._releasing = False, threading.Lock()

    def read(self, parsed: ParsedRequest) -> None:
        self.parsed, self._answer = parsed, Answer(parsed)

    def put(self, delta: Delta) -> None:
        """Send a delta when the one before is sent; keep it where the client wants the answer as a whole."""
        self.num_tokens += len(delta.token_ids)
        self.is_ended = delta.finish_reason is not None
        with self._lock:
            self._waiting.append((time.monotonic(), delta))
            if self._is_sending or not (self.is_ended or self._is_stream()):
                return
            self._is_sending = True
        if self.num_tokens == len(delta.token_ids):  # a client waits for the first
            self._send()
        else:
            self._thread.submit(self._send)

    def fail(self, error: EdgeVlmError) -> None:
        """End the request with an error, and count it."""
        self.timing.failed(error)
        # their frames hold this job, so all of it would wait for Python's collector of cycles
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self._error = error
        self.put(Delta((), "", ERROR))

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def is_abandoned(self) -> bool:
        """Whether the client has left or its time is over. Any thread but the loop's may ask, because this asks Triton.

        Triton releases a request with its last response, and a later look would crash the server.
        """
        with self._releasing:
            return not self._is_released and (bool(self._sender.is_cancelled()) or self.is_late())

    def check_time(self) -> None:
        if self.is_late() and not self.num_tokens:
            raise DeadlineExceeded(
                f"the timeout of {self.timeout_seconds} s was over before the first token: allow more", check="timeout"
            )

    def _is_stream(self) -> bool:
        return self.parsed is not None and self.parsed.is_stream

    def _break(self, error: EdgeVlmError) -> None:
        assert self.task is not None  # for mypy: it put what could not be sent
        self.task.cancel()
        self.fail(error)

    def _send(self) -> None:
        while deltas := self._next():
            try:
                self._respond(deltas)
            except Exception:
                error = unexpected()
                if not self._error and self.task is not None:  # else telling failed
                    self.task.get_loop().call_soon_threadsafe(self._break, error)

    def _next(self) -> list[Delta]:
        """The deltas of the next response; none when nothing waits."""
        with self._lock:
            self._is_sending = bool(self._waiting)
            if not self._waiting:
                return []
            lag = time.monotonic() - self._waiting[0][0]
            is_all = lag > MERGE_AFTER_SECONDS or not self._is_stream()
            return [self._waiting.popleft()[1] for _ in range(len(self._waiting) if is_all else 1)]

    def _respond(self, deltas: list[Delta]) -> None:
        if self._is_released:
            return
        reason = deltas[-1].finish_reason
        if self._error and reason == ERROR and not (self._answer and self._answer.is_begun):
            response = failure(self._error)
        elif self._answer is None:
            response = outputs(nothing(reason or ""))
        else:
            error = self._error.wire() if self._error and reason == ERROR else ""
            response = outputs(self._answer.outputs(deltas, self.keys, error))
        if reason is not None:
            with self._releasing:
                self._sender.send(response, flags=FINAL)
                self._is_released = True
        else:
            self._sender.send(response)
