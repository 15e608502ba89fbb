"""Answers over HTTP for asyncio. The blocking client uses the same HttpCall for a request; only the sockets differ."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from contract.errors import EdgeVlmError, Unavailable
from contract.names import MODEL
from contract.sampling import Sampling
from edge_runtime.clients.closing import Awaited
from edge_runtime.clients.connection import Connection
from edge_runtime.clients.http_address import HttpAddress
from edge_runtime.clients.http_call import HttpCall
from edge_runtime.clients.http_steps import SHORTEST_S, Ask, Reply, Steps, advance
from edge_runtime.clients.sessions import Sessions, aiohttp
from edge_runtime.request import Delta, Request


@dataclass(eq=False)
class AsyncHttpClient(Connection, Awaited):
    """A connection to Triton's HTTP port; see Connection for the arguments.

    Close it, or use `async with`: it keeps its connection, and shared memory where that is on.
    """

    url: str = "127.0.0.1:8000"
    _address: HttpAddress = field(init=False, repr=False)
    _sessions: Sessions = field(default_factory=Sessions, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._address = HttpAddress.of(self)

    async def close(self) -> None:
        """As HttpClient.close."""
        call = HttpCall(self)
        try:
            with suppress(Unavailable):  # a server that is away holds nothing
                await self._done(call, call.close())
        finally:
            await self._sessions.close()

    async def server(self) -> tuple[str, str]:
        """As HttpClient.server."""
        call = HttpCall(self)
        await self._done(call, call.server())
        name, version = call.value
        return name, version

    async def parameters(self, model: str = MODEL) -> dict[str, str]:
        """As HttpClient.parameters."""
        call = HttpCall(self)
        await self._done(call, call.parameters(model))
        return dict(call.value)

    async def infer(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> Delta:
        """As HttpClient.infer."""
        call = HttpCall(self, deadline_s)
        try:
            await self._done(call, call.infer(request, sampling or Sampling()))
        finally:
            await asyncio.shield(self._done(call, call.release()))
        delta: Delta = call.value
        return delta

    async def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Delta, None]:
        """As HttpClient.stream; a program that cancels the task, or calls aclose(), closes the connection."""
        call = HttpCall(self, deadline_s)
        try:
            async with aclosing(self._run(call, call.stream(request, sampling or Sampling()))) as pieces:
                async for delta in pieces:
                    yield delta
            if call.whole is not None:
                yield call.whole
        finally:
            await asyncio.shield(self._done(call, call.release()))

    async def _done(self, call: HttpCall, steps: Steps) -> None:
        async for _ in self._run(call, steps):
            pass

    async def _run(self, call: HttpCall, steps: Steps) -> AsyncGenerator[Delta, None]:
        """Send what the steps ask for, one after the other, until they are over."""
        ask = await asyncio.to_thread(advance, steps)  # the thread converts and hashes large tensors
        while ask is not None:
            await asyncio.sleep(ask.pause_s)
            async with self._sent(call, ask) as response:
                if ask.is_stream and response.status == 200:
                    async for line in response.content:
                        if (delta := call.piece(line)) is not None:
                            yield delta
                    reply = Reply(200)
                else:
                    reply = Reply(response.status, dict(response.headers), await response.read())
            ask = await asyncio.to_thread(advance, steps, reply)

    @asynccontextmanager
    async def _sent(self, call: HttpCall, ask: Ask) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            session = await self._sessions.here()
            async with await self._answered(session, call, ask) as response:
                yield response
        except EdgeVlmError:
            raise
        except TimeoutError:
            raise call.patience.late() from None
        except (OSError, aiohttp.ClientError) as error:
            raise call.broken(error, is_http=not isinstance(error, aiohttp.ClientResponseError)) from error

    async def _answered(self, session: aiohttp.ClientSession, call: HttpCall, ask: Ask) -> aiohttp.ClientResponse:
        """Send, and read the head of the answer; as HttpClient's."""
        patience, url = call.patience, self._address.base_url + ask.path
        tls = True if self._address.tls is None else self._address.tls
        headers = {"Accept-Encoding": "identity", **self.headers, **ask.headers}
        may_repeat = ask.may_repeat
        while True:
            wait_s = max(patience.wait_s, SHORTEST_S)
            left_s = None if patience.left_s is None else max(patience.left_s, SHORTEST_S)
            limits = aiohttp.ClientTimeout(left_s, sock_connect=wait_s, sock_read=self.timeout_s, ceil_threshold=1e9)
            try:
                return await session.request(
                    ask.method, url, data=ask.body, headers=headers, ssl=tls, timeout=limits, allow_redirects=False
                )
            except aiohttp.ClientSSLError:
                raise
            except aiohttp.ClientConnectorError as error:
                await asyncio.sleep(call.unreachable(error))
            except (aiohttp.ServerDisconnectedError, ConnectionError):
                if not may_repeat:
                    raise
                may_repeat = False
