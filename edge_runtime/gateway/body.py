"""Bodies read within a size, a time and a share of memory.

A body that is refused is still read and dropped for a moment: a connection closed under a sender's hands loses the answer
that says why.
"""

import time

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from edge_runtime.gateway.failures import RETRY_AFTER_S, Failure
from edge_runtime.gateway.settings import Settings

BODY_S = 60.0  # longest time for a whole body
DROP_S = 5.0


class Bodies:
    """Reads bodies. num_bytes is what all of them hold now; whoever is done with one gives its bytes back."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.num_bytes = settings, 0

    async def read(self, scope: Scope, receive: Receive) -> bytearray:
        """A whole body, its length added to num_bytes.

        Raises:
            Failure: 408 too slow, 413 too large, 503 too many at once.
            ClientDisconnect: the sender went away.
        """
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"")
        body, held, is_whole = bytearray(), int(announced) if announced.isdigit() else 0, False
        self.num_bytes += held
        try:
            self._check(held)
            with anyio.fail_after(BODY_S):
                while not is_whole:
                    chunk, is_whole = await _next(receive)
                    body += chunk
                    if len(body) > held:  # no length was announced
                        self.num_bytes += len(body) - held
                        held = len(body)
                        self._check(held)
        except BaseException as error:
            self.num_bytes -= held
            if isinstance(error, TimeoutError):
                raise Failure(408, f"the body took longer than {BODY_S:g} s") from error
            if isinstance(error, Failure) and not is_whole and b"expect" not in headers:
                body.clear()
                await _drop(receive)
            raise
        return body

    def _check(self, length: int) -> None:
        settings = self._settings
        if length > settings.max_body_bytes:
            raise Failure(413, f"the body has more than {settings.max_body_bytes} bytes (--max-body-bytes)")
        if self.num_bytes > settings.max_pending_bytes:
            raise Failure(
                503,
                f"requests under way hold {settings.max_pending_bytes} bytes (--max-pending-bytes): try again",
                code="overloaded",
                retry_after_s=RETRY_AFTER_S,
            )


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), not message.get("more_body", False)


async def _drop(receive: Receive) -> None:
    deadline, is_whole = time.monotonic() + DROP_S, False
    with anyio.move_on_after(DROP_S):
        while not is_whole and time.monotonic() < deadline:
            _, is_whole = await _next(receive)
