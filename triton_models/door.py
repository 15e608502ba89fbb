"""What every model does with the requests that Triton brings: it accepts or refuses them, and watches the rest.

Whatever fails, a request gets its final flag, or its client would wait for ever.
"""

import contextlib
import faulthandler
import glob
import json
import os
import select
import threading
from collections.abc import Callable, Iterable
from typing import Any

from contract.errors import EdgeVlmError, InvalidInput, shown
from contract.sampling import MAX_CHARACTERS
from serving.triton.guardian import SHM_PREFIX
from triton_models.replies import FINAL, failure, unexpected

POLL_SECONDS = 0.05
MAX_TIMEOUT_US = 1 << 62
FIELDS = "json_fields"  # request parameters as one JSON text: a BLS request carries no fractions and no large numbers


def accept_each(
    requests: Iterable[Any],
    accept: Callable[[Any, Any], None],
    refused: Callable[[EdgeVlmError], None] | None = None,
) -> None:
    """Call accept(request, sender) for each request. An error that it raises goes to the client, and to `refused`."""
    for request in requests:
        sender = request.get_response_sender()
        try:
            accept(request, sender)
        except Exception as error:
            known = as_known(error)
            if refused is not None:
                refused(known)
            sender.send(failure(known), flags=FINAL)


def as_known(error: Exception) -> EdgeVlmError:
    """The EdgeVlmError for the client: the error itself, or the ServerError that stands for a bug."""
    return error if isinstance(error, EdgeVlmError) else unexpected()


def parameters(request: Any) -> tuple[dict[str, Any], int]:
    """The request parameters by name, and the timeout in microseconds, 0 for none.

    JSON fields that are no inputs arrive as parameters, `id` and `timeout` among them. Triton has read `id`; it reads
    `timeout` where it is KServe's parameter of an infer request, and leaves it to the model where it is a JSON field.

    Raises:
        InvalidInput: the parameters are too long, or `timeout` is no number of microseconds.
    """
    text = request.parameters() or "{}"
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"the request parameters have {len(text)} characters, {MAX_CHARACTERS} are allowed", check="sampling-length"
        )
    found: dict[str, Any] = json.loads(text)
    if (packed := _unpacked(found.get(FIELDS))) is not None:
        del found[FIELDS]
        found |= packed
    if found.get("id") == request.request_id():
        found.pop("id", None)
    timeout_us = found.pop("timeout", request.timeout())
    if type(timeout_us) is not int or not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise InvalidInput(
            f"timeout is {shown(timeout_us)}, whole microseconds from 1 to {MAX_TIMEOUT_US} are allowed",
            check="timeout-value",
        )
    return found, timeout_us


def _unpacked(text: Any) -> dict[str, Any] | None:
    """The fields that the other model packed; None for a client's own parameter of that name, which is then unknown."""
    try:
        fields = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def cancelled_id(request: Any) -> str:
    """The id of the request that a request with `cancel` ends.

    Raises:
        InvalidInput: the request has no id, and would end every request that has none.
    """
    if not request.request_id():
        raise InvalidInput(
            "cancel comes without a request id: send the id of the request that it ends", check="cancel-id"
        )
    return str(request.request_id())


class Watcher(threading.Thread):
    """Calls `look` every POLL_SECONDS until `end`. A second thread ends the process when Triton is gone: `look` asks
    Triton, and a dead Triton may never answer."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="watcher", daemon=True)
        self._look, self._closing = look, threading.Event()
        faulthandler.enable(file=2)  # a crash writes into Triton's log where it happened; the guardian repeats it
        threading.Thread(target=_outlive, args=[os.getppid()], name="orphan", daemon=True).start()
        self.start()

    def run(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            try:
                self._look()
            except Exception:
                unexpected()  # logged; the next round tries again

    def end(self) -> None:
        self._closing.set()
        self.join(5)


def _outlive(parent: int) -> None:
    """Wait until the parent process is dead, then leave. The kernel wakes this thread; Triton's own code looks every
    300 ms, and its orderly exit may wait for threads that wait for Triton."""
    with contextlib.suppress(ProcessLookupError):  # dead already
        waiting = select.poll()
        waiting.register(os.pidfd_open(parent), select.POLLIN)
        waiting.poll()
    _leave()


def _leave() -> None:
    """Take the shared memory of a killed server away, and this process with it. No other process is left to do so."""
    if prefix := os.environ.get(SHM_PREFIX):
        for region in glob.glob(f"/dev/shm/{glob.escape(prefix)}*"):
            with contextlib.suppress(FileNotFoundError):  # another orphan was faster
                os.unlink(region)
    os._exit(1)
