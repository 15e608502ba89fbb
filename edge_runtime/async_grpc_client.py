"""Answers streamed over gRPC for asyncio: many at once in one thread of the caller's.

The request itself is the Call that the blocking client uses; only the waiting differs.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from contract.sampling import Sampling
from edge_runtime.grpc_call import Answer, Call, Connection, Tls
from edge_runtime.request import Delta, Precision, Request


class AsyncGrpcClient:
    """A connection to Triton's gRPC port; the arguments are those of GrpcClient. Nothing is held between requests."""

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        timeout_s: float = 60.0,
        precision: Precision = "fp16",
        retry_s: float = 0.0,
        tls: Tls | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._connection = Connection(url, timeout_s, precision, retry_s, tls, headers or {})

    async def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Send a request and yield its answer piece by piece; cancelling the task, or aclose(), cancels it on the server.

        Raises:
            As GrpcClient.stream.
        """
        loop, answers = asyncio.get_running_loop(), asyncio.Queue[Answer | None]()  # None: time is up

        def deliver(answer: Answer) -> None:  # from a thread of the connection
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(answers.put_nowait, answer)

        call = Call(self._connection, request, sampling or Sampling(), deadline_s, deliver)
        try:
            await asyncio.to_thread(call.start)
            while not call.ended:
                wait_s = call.wait_s()
                due = loop.time() + wait_s
                # asyncio.wait_for would lose a cancellation that meets an answer (CPython 3.11 and before)
                timer = loop.call_later(wait_s, answers.put_nowait, None)
                try:
                    answer = await answers.get()
                finally:
                    timer.cancel()
                if answer is None:
                    if loop.time() >= due:
                        raise call.late()
                    continue  # left by the timer of an earlier answer
                if (pause_s := call.retry_pause_s(answer)) is not None:
                    await asyncio.sleep(pause_s)
                    await asyncio.to_thread(call.start)
                elif (delta := call.read(answer)) is not None:
                    yield delta
        finally:
            await asyncio.shield(asyncio.to_thread(call.close))
