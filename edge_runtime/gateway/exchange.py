"""One request and its answer on the wire: whole, or as server-sent events."""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_runtime.gateway.failures import LOG, Failure
from edge_runtime.gateway.kinds import Kind

EVENTS, LINES = b"text/event-stream; charset=utf-8", b"application/x-ndjson"
STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the pieces
]
MAX_LOGGED = 256
BLOCK_BYTES = 1 << 20  # of an answer in pieces
_LOGGED = set[str]()


class Exchange:
    """One request and its answer.

    Attributes:
        begun: when the request began, by time.perf_counter.
        status: the status of the answer.
        ignored: the fields that the gateway ignores; a header of the answer names them.
        is_begun, is_complete: whether the answer has begun, and whether its last byte is out.
    """

    def __init__(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        self._kind = kind
        self.scope, self.receive, self._send = scope, receive, send
        self.begun, self.status = time.perf_counter(), 200
        self.ignored: tuple[str, ...] = ()
        self.is_begun = self.is_complete = False

    async def gone(self) -> None:
        """Wait until the client goes away. Call it only when somebody has read the body."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def begin_events(self) -> None:
        self.is_begun = True
        kind = (b"content-type", LINES if self._kind.is_lines else EVENTS)
        headers = [kind, *STREAM_HEADERS, *self._headers()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send_events(self, values: list[dict[str, Any]], is_end: bool = False) -> None:
        """Send server-sent events, or lines of JSON, in one write."""
        lines = b"".join(map(self._line, values))
        if is_end:
            lines += b"data: [DONE]\n\n" if self._kind.ends_with_done else b""
            self.is_complete = True
        await self._send({"type": "http.response.body", "body": lines, "more_body": not is_end})

    def _line(self, value: dict[str, Any]) -> bytes:
        if self._kind.is_lines:
            return orjson.dumps(value) + b"\n"
        name = b"event: " + value["type"].encode() + b"\n" if self._kind.names_events else b""
        return name + b"data: " + orjson.dumps(value) + b"\n\n"

    async def send_json(self, value: dict[str, Any]) -> None:
        self.is_begun = self.is_complete = True
        response = Response(orjson.dumps(value), media_type="application/json")
        response.raw_headers += self._headers()
        await response(self.scope, self.receive, self._send)

    async def send_pieces(self, pieces: Iterator[bytes]) -> None:
        """Send JSON piece by piece: other answers go on in between, and memory holds what the client has yet to take."""
        body, is_whole = bytearray(), False
        headers = [(b"content-type", b"application/json"), *self._headers()]
        while not is_whole:
            while len(body) < BLOCK_BYTES and not is_whole:
                piece = next(pieces, None)
                body += piece or b""
                is_whole = piece is None
                await asyncio.sleep(0)
            if not self.is_begun:
                self.is_begun = True
                length = [(b"content-length", b"%d" % len(body))] if is_whole else []
                await self._send({"type": "http.response.start", "status": 200, "headers": headers + length})
            self.is_complete = is_whole
            await self._send({"type": "http.response.body", "body": bytes(body), "more_body": not is_whole})
            body.clear()

    async def fail(self, failure: Failure) -> None:
        """Send an error answer, or an error event where the answer has begun."""
        self.status = failure.status
        if self.is_complete:  # the answer is over: the client reads nothing more
            return
        if self.is_begun:
            await self.send_events([self._kind.error_event(failure)], is_end=True)
        else:
            self.is_begun = True
            response = failure.response(self._kind.error_body(failure))
            await response(self.scope, self.receive, self._send)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """The header that names the ignored fields; this call also writes each name to the log once."""
        if not self.ignored:
            return []
        names = [re.sub(r"[^\w.-]", "?", name[:64], flags=re.ASCII) or "?" for name in self.ignored[:16]]
        for name in names:
            if name not in _LOGGED and len(_LOGGED) < MAX_LOGGED:
                _LOGGED.add(name)
                LOG.warning("field %r is not known here and was ignored (--strict refuses such requests)", name)
        return [(b"x-ignored-fields", ", ".join(names).encode())]
