"""Where every request enters: one request from its first byte to its last, also when its client leaves in between."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from contract.errors import shown
from edge_runtime.gateway.body import Bodies, Held
from edge_runtime.gateway.callers import Callers
from edge_runtime.gateway.chat_request import parse
from edge_runtime.gateway.exchange import Exchange
from edge_runtime.gateway.failures import RETRY_AFTER_S, Failure, failure_of
from edge_runtime.gateway.kinds import Kind
from edge_runtime.gateway.metrics import Metrics
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.shares import Shares

NUM_PARSERS = 2  # how many threads parse bodies; one client holds at most half of them
GONE = 499  # nginx's number for a client that went away; the gateway counts it and never sends it
Answer = Callable[[Kind, bytearray, Held, Exchange, bytes], Awaitable[None]]


class Door:
    """The limits, threads and metrics that the endpoints of a gateway share.

    Args:
        num_waiting: the function that says how many requests wait for the tower or are in it.
    """

    def __init__(self, settings: Settings, callers: Callers, num_waiting: Callable[[], float]) -> None:
        self._settings, self._callers = settings, callers
        self._bodies, self._num_running = Bodies(settings), 0
        self._running: Counter[bytes] = Counter()  # by client
        self._most_of_one = max(1, settings.max_concurrency * 3 // 4)
        self._parsers = ThreadPoolExecutor(NUM_PARSERS, "body")
        self._turns = Shares(NUM_PARSERS, NUM_PARSERS // 2)
        self.metrics = Metrics(lambda: self._num_running, num_waiting, lambda: self._bodies.num_bytes)

    def close(self) -> None:
        """End the threads."""
        self._parsers.shutdown(wait=False, cancel_futures=True)

    async def parsed(self, kind: Kind, body: bytearray, caller: bytes) -> Any:
        """What the endpoint's reader makes of a caller's body, which is empty afterwards.

        Raises:
            Failure, InvalidInput: as the reader.
        """
        loop = asyncio.get_running_loop()
        async with self._turns.of(caller):
            request = await loop.run_in_executor(self._parsers, parse, body, self._settings, kind.read)
        body.clear()
        return request

    async def serve(self, kind: Kind, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of an endpoint."""
        exchange = Exchange(kind, scope, receive, send)
        self._num_running += 1
        try:
            await self._serve(kind, answer, Request(scope, receive), exchange)
        except ClientDisconnect:
            exchange.status = GONE
        except asyncio.CancelledError:  # the gateway stops
            exchange.status = GONE
            raise
        except Exception as error:
            await exchange.fail(failure_of(error))
        finally:
            self._num_running -= 1
            self.metrics.requests.labels(str(exchange.status)).inc()
            self.metrics.request_seconds.observe(time.perf_counter() - exchange.begun)

    async def _serve(self, kind: Kind, answer: Answer, request: Request, exchange: Exchange) -> None:
        caller = self._callers.key(request)
        self._running[caller] += 1
        try:
            await self._admitted(kind, answer, request, exchange, caller)
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]

    async def _admitted(self, kind: Kind, answer: Answer, request: Request, exchange: Exchange, caller: bytes) -> None:
        """Read and answer a request, where there is a place for it."""
        if self._num_running > self._settings.max_concurrency:
            raise Failure(
                503,
                f"{self._settings.max_concurrency} requests are under way, which is the most (--max-concurrency): try again later",
                code="overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._running[caller] > self._most_of_one:
            raise Failure(
                429,
                f"{self._most_of_one} of your requests are under way, which is the most of one client (three quarters of "
                "--max-concurrency): try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        kinds = request.headers.getlist("content-type")
        if [kind.partition(";")[0].strip().lower() for kind in kinds] != ["application/json"]:
            # this also keeps pages of other origins out: with this type a browser asks first
            raise Failure(415, f"content-type is {shown(', '.join(kinds))}, application/json is expected")
        self._callers.count(caller)
        body, held = await self._bodies.read(exchange.scope, exchange.receive, caller)
        work = asyncio.ensure_future(answer(kind, body, held, exchange, caller))
        gone = asyncio.create_task(exchange.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if exchange.is_complete:  # the end of an answer looks like a client that left
                await work
            if not work.done():
                raise ClientDisconnect
            work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


class Endpoint:
    """One endpoint, an ASGI application."""

    def __init__(self, door: Door, kind: Kind, answer: Answer) -> None:
        self._door, self._kind, self._answer = door, kind, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door.serve(self._kind, self._answer, scope, receive, send)
