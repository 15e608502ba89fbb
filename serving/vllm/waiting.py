"""How vLLM's processes wait for each other on a CPU: asleep.

EngineCore and its workers exchange a message a step, and whichever waits asks the shared memory again and again until
a second has passed without one. Beside a GPU that saves microseconds. On a CPU it takes a core, or half of one that
computes, from the model, from Triton and from the clients.
"""

import time
from typing import Any

import zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.platforms import current_platform

# vLLM may drop a notification within about a millisecond of another (its socket holds one), so the process that waits
# also looks itself: soon after the last message, then ever more seldom.
LOOK_MILLISECONDS, LOOK_SHARE = 1, 1 / 8


def sleep_while_waiting() -> None:
    """Put `_wait` in place of vLLM's, in this process and where there is no GPU."""
    if current_platform.is_cpu():
        SpinCondition.wait = _wait


_idle = SpinCondition.wait


def _wait(self: Any, timeout_ms: int | None = None) -> None:
    """Wait as vLLM does, but sleep until the writer's notification also while messages are frequent."""
    waited_seconds = time.monotonic() - self.last_read
    look_milliseconds = LOOK_MILLISECONDS + 1e3 * LOOK_SHARE * waited_seconds
    if waited_seconds > self.busy_loop_s:
        _idle(self, timeout_ms)
    elif self.local_notify_socket in dict(self.poller.poll(look_milliseconds)):
        self.local_notify_socket.recv(flags=zmq.NOBLOCK, copy=False)
