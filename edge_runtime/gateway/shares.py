"""Places that clients share: one client holds at most its share of them, and its further requests wait in turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """Places for work.

    Args:
        num_places: how many there are.
        share: how many of them one client holds at most.
    """

    def __init__(self, num_places: int, share: int) -> None:
        self._places, self._share = asyncio.Semaphore(num_places), share
        self._own: dict[bytes, tuple[asyncio.Semaphore, list[None]]] = {}  # the list has one entry for each user

    @asynccontextmanager
    async def of(self, caller: bytes) -> AsyncIterator[None]:
        """Wait for a place, and hold it inside the block."""
        own, users = self._own.setdefault(caller, (asyncio.Semaphore(self._share), []))
        users.append(None)
        try:
            async with own, self._places:
                yield
        finally:
            users.pop()
            if not users:
                del self._own[caller]
