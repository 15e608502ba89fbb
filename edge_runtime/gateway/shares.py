"""Places that callers share: one caller holds at most its share of them, and the others wait in turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """Args: num_places at once, of which one caller holds `share` at most."""

    def __init__(self, num_places: int, share: int) -> None:
        self._places, self._share = asyncio.Semaphore(num_places), share
        self._own: dict[bytes, tuple[asyncio.Semaphore, list[None]]] = {}  # with one entry for each that uses it

    @asynccontextmanager
    async def of(self, caller: bytes) -> AsyncIterator[None]:
        """Hold a place inside the block."""
        own, users = self._own.setdefault(caller, (asyncio.Semaphore(self._share), []))
        users.append(None)
        try:
            async with own, self._places:
                yield
        finally:
            users.pop()
            if not users:
                del self._own[caller]
