"""Bodies reads bodies within a size, a time, a rate and a share of memory.

It counts bytes that have come, never announced ones. For a moment it still reads a body that it refuses, and drops the
bytes: a client that still sends when the connection closes never sees the answer that says why.
"""

import asyncio
import time
import zlib
from collections import Counter

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from contract.errors import shown
from edge_runtime.gateway.failures import RETRY_AFTER_S, Failure
from edge_runtime.gateway.settings import Settings

BODY_S = 60.0  # the longest time for a whole body
GRACE_S = 10.0  # after this time a body must have come at MIN_BYTES_PER_S on average
MIN_BYTES_PER_S = 1024
DROP_S = 5.0
STEP_BYTES = 1 << 18  # how many compressed bytes one step unpacks, and how many bytes it may give


class Held:
    """What one request holds of the memory for bodies. release() gives back exactly what take() took."""

    def __init__(self, bodies: "Bodies", caller: bytes) -> None:
        self._bodies, self._caller, self._num_bytes = bodies, caller, 0

    def take(self, num_bytes: int) -> None:
        """Count bytes that have come.

        Raises:
            Failure: 429, one client holds too many; 503, all clients together do.
        """
        self._num_bytes += num_bytes
        self._bodies.num_bytes += num_bytes
        self._bodies.by_caller[self._caller] += num_bytes
        self._bodies.check(self._caller)

    def release(self, num_bytes: int | None = None) -> None:
        """Give back `num_bytes` bytes, or all."""
        num_bytes = self._num_bytes if num_bytes is None else num_bytes
        self._num_bytes -= num_bytes
        self._bodies.num_bytes -= num_bytes
        self._bodies.by_caller[self._caller] -= num_bytes
        if not self._bodies.by_caller[self._caller]:
            del self._bodies.by_caller[self._caller]


class Bodies:
    """Reads bodies.

    Attributes:
        num_bytes: how many bytes all bodies hold now.
        by_caller: how many bytes the bodies of each client hold now.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self.num_bytes = settings, 0
        self.by_caller: Counter[bytes] = Counter()

    async def read(self, scope: Scope, receive: Receive, caller: bytes) -> tuple[bytearray, Held]:
        """A whole body, unpacked, and the memory that it holds: whoever gets it releases that when the work is done.

        Raises:
            Failure: 400, the body says its length in two ways or is no gzip; 408, it is too slow; 413, too large; 415,
                packed in another way than gzip; 429, it is too much for one client; 503, it is too much for all.
            ClientDisconnect: the client went away.
        """
        headers = dict(scope["headers"])
        held, body = Held(self, caller), bytearray()
        is_whole = [False]
        try:
            is_gzip = self._check_headers(headers)
            await self._receive(receive, body, held, is_whole)
            if is_gzip:
                body = await self._unpacked(body, held)
        except BaseException as error:
            held.release()
            if isinstance(error, Failure) and error.status != 408 and not is_whole[0] and b"expect" not in headers:
                body.clear()
                await _drop(receive)
            raise
        return body, held

    async def _receive(self, receive: Receive, body: bytearray, held: Held, is_whole: list[bool]) -> None:
        begun = time.monotonic()
        while not is_whole[0]:
            due_s = min(BODY_S, max(GRACE_S, len(body) / MIN_BYTES_PER_S))
            try:
                with anyio.fail_after(begun + due_s - time.monotonic()):
                    chunk, is_whole[0] = await _next(receive)
            except TimeoutError as error:
                raise Failure(
                    408,
                    f"{len(body)} bytes of the body came in {due_s:g} s, at least {MIN_BYTES_PER_S} a second and the whole "
                    f"in {BODY_S:g} s are expected: send it faster, or a smaller one",
                ) from error
            self._check_size(len(body) + len(chunk))
            held.take(len(chunk))
            body += chunk

    async def _unpacked(self, packed: bytearray, held: Held) -> bytearray:
        unpacker, body = zlib.decompressobj(wbits=31), bytearray()
        try:
            for start in range(0, len(packed), STEP_BYTES):
                rest = bytes(packed[start : start + STEP_BYTES])
                while rest:
                    piece = await asyncio.to_thread(unpacker.decompress, rest, STEP_BYTES)
                    rest = unpacker.unconsumed_tail
                    held.take(len(piece))
                    body += piece
                    self._check_size(len(body))
        except zlib.error as error:
            raise Failure(400, f"the body is no gzip: {error}") from error
        if not unpacker.eof or unpacker.unused_data:
            raise Failure(
                400, "the body is no gzip: it is cut short, or something follows it; send one whole gzip member"
            )
        held.release(len(packed))
        return body

    def _check_headers(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the body is packed with gzip."""
        if b"transfer-encoding" in headers and b"content-length" in headers:
            raise Failure(400, "the body has a Content-Length and a Transfer-Encoding: send one of them")
        announced = headers.get(b"content-length", b"")
        self._check_size(int(announced) if announced.isdigit() else 0)
        packing = headers.get(b"content-encoding", b"").decode("latin1").strip().lower()
        if packing not in ("", "identity", "gzip", "x-gzip"):
            raise Failure(415, f"content-encoding is {shown(packing)}, gzip or none is expected")
        return packing.endswith("gzip")

    def _check_size(self, length: int) -> None:
        if length > (most := self._settings.max_body_bytes):
            raise Failure(413, f"the body has more than {most} bytes (--max-body-bytes): send a smaller one")

    def check(self, caller: bytes) -> None:
        """Check the limits of the bytes that one client holds, and that all clients hold."""
        settings = self._settings
        # memory holds a packed body and the unpacked one at once
        share = max(2 * settings.max_body_bytes, settings.max_pending_bytes // 2)
        if self.by_caller[caller] > share:
            raise Failure(
                429,
                f"your requests under way hold more than {share} bytes, which is the most of one client: wait for their answers",
                code="overloaded", retry_after_s=RETRY_AFTER_S,
            )  # fmt: skip
        if self.num_bytes > settings.max_pending_bytes:
            raise Failure(
                503,
                f"requests under way hold more than {settings.max_pending_bytes} bytes (--max-pending-bytes): try again later",
                code="overloaded", retry_after_s=RETRY_AFTER_S,
            )  # fmt: skip


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
