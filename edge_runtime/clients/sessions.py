"""aiohttp's sessions, one for each event loop: a session keeps idle connections, and belongs to its loop."""

import asyncio
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary

from contract.errors import MissingExtra
from edge_runtime.clients.idle import IDLE_S

try:
    import aiohttp  # comes with tritonclient[http]
except ImportError as error:
    raise MissingExtra("the asyncio HTTP client", "client") from error

__all__ = ["Sessions", "aiohttp"]
READ_BYTES = 1 << 20


class Sessions:
    """The sessions of one client. The client closes them, or their loop does when it ends all open generators."""

    def __init__(self) -> None:
        self._open: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[aiohttp.ClientSession, None]]
        ] = WeakKeyDictionary()

    async def here(self) -> aiohttp.ClientSession:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open or self._open[loop][0].closed:
            generator = _session()
            self._open[loop] = await anext(generator), generator
        return self._open[loop][0]

    async def close(self) -> None:
        """Close the session of the running loop."""
        if (found := self._open.pop(asyncio.get_running_loop(), None)) is not None:
            await found[1].aclose()


async def _session() -> AsyncGenerator[aiohttp.ClientSession, None]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S)
    async with aiohttp.ClientSession(
        connector=connector, read_bufsize=READ_BYTES, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session
