"""The places in vLLM, and the wait for one: requests wait in front of vLLM, where a full server can refuse them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from contract.errors import DeadlineExceeded, Unavailable

CLOSING = "the engine is shutting down: try again later"


class Slots:
    """`number` places, and a wait of at most max_seconds for one. All calls belong to one event loop, `loop`."""

    def __init__(self, number: int, max_seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._free, self._max_seconds = asyncio.Semaphore(number), max_seconds
        self._closing: asyncio.Future[None] = loop.create_future()

    def close(self) -> None:
        """Refuse the requests that wait, and all later ones, with Unavailable."""
        self._closing.set_result(None)

    @property
    def is_closed(self) -> bool:
        return self._closing.done()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[float]:
        """A place, from the end of the wait for it to the end of the block; gives the seconds of the wait.

        Raises:
            DeadlineExceeded: no place became free in time.
            Unavailable: the engine is closing.
        """
        arrived_seconds = time.monotonic()
        await self._take()
        try:
            yield time.monotonic() - arrived_seconds
        finally:
            self._free.release()

    async def _take(self) -> None:
        if self.is_closed:
            raise Unavailable(CLOSING)
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        slot = asyncio.ensure_future(self._free.acquire())
        ends: set[asyncio.Future[Any]] = {slot, self._closing}
        try:
            await asyncio.wait(ends, timeout=self._max_seconds, return_when=asyncio.FIRST_COMPLETED)
            if self.is_closed:
                raise Unavailable(CLOSING)
            if not slot.done():
                raise DeadlineExceeded(
                    f"no slot became free within {self._max_seconds} s: try again later", check="queue-time"
                )
        except BaseException:
            if slot.done() and not slot.cancelled():
                self._free.release()
            slot.cancel()
            raise
