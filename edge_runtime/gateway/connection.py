"""uvicorn's HTTP connection with an end to its patience.

uvicorn waits for ever for a caller who reads nothing of his answer, and for one who connects and says nothing. Both
hold memory and, where the answer comes from a server, a place there.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

READ_NOTHING_S = 30.0
SAY_NOTHING_S = 30.0


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes, chosen at import
    """Cuts the connection when the caller takes nothing, or asks nothing, for a while."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(SAY_NOTHING_S, self._close_silent)

    def _close_silent(self) -> None:
        if self.cycle is None:  # no request has begun
            self.transport.close()

    def pause_writing(self) -> None:
        """asyncio says that more is waiting to be taken than it likes to hold."""
        super().pause_writing()
        self._timer = self.loop.call_later(READ_NOTHING_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
