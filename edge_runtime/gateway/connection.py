"""uvicorn's HTTP connection with time limits, for the first request of a connection and for every later one.

uvicorn waits for ever for a client that reads nothing of its answer, for one that begins a request and does not go on,
and for the rest of a body that has its answer already. Each of them holds memory and, where the answer comes from a
server, a place there.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

READ_NOTHING_S = 30.0
SAY_NOTHING_S = 30.0


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes, chosen at import
    """Cuts the connection when the client takes nothing for READ_NOTHING_S, or asks nothing for SAY_NOTHING_S."""

    _reading: asyncio.TimerHandle | None = None
    _asking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._asking, self._reading):
            if timer is not None:
                timer.cancel()

    def on_response_complete(self) -> None:
        """Expect the next request when an answer is out; its headers have as much time as those of the first one."""
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered:  # else the next request lay there already
            self._expect_request()

    def _expect_request(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self.loop.call_later(SAY_NOTHING_S, self._close_silent, self.cycle)

    def _close_silent(self, last: Any) -> None:
        if self.cycle is last:  # no other request has begun
            self.transport.close()

    def pause_writing(self) -> None:
        """Start the clock when asyncio holds more unread bytes than it wants to."""
        super().pause_writing()
        self._reading = self.loop.call_later(READ_NOTHING_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
