"""Answers that stream over gRPC for asyncio: one thread takes many at once.

The request itself is the Call that the blocking client uses; only the way to wait differs.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from contract.names import MODEL
from contract.sampling import Sampling
from edge_runtime.clients import grpc_channel
from edge_runtime.clients.closing import Awaited
from edge_runtime.clients.grpc_call import Answer, Call
from edge_runtime.clients.grpc_channel import GrpcConnection
from edge_runtime.request import Delta, Request


@dataclass(eq=False)
class AsyncGrpcClient(GrpcConnection, Awaited):
    """A connection to Triton's gRPC port; see Connection for the arguments.

    Close it, or use `async with`: it keeps its connection, and shared memory where that is on.
    """

    async def close(self) -> None:
        """As GrpcClient.close."""
        await asyncio.to_thread(grpc_channel.close, self)

    async def server(self) -> tuple[str, str]:
        """As GrpcClient.server."""
        return await asyncio.to_thread(grpc_channel.server, self)

    async def parameters(self, model: str = MODEL) -> dict[str, str]:
        """As GrpcClient.parameters."""
        return await asyncio.to_thread(grpc_channel.parameters, self, model)

    async def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Send a request and yield its answer piece by piece.

        A program that cancels the task, or calls aclose(), cancels the request on the server.

        Raises:
            As GrpcClient.stream.
        """
        loop, answers = asyncio.get_running_loop(), asyncio.Queue[Answer | None]()  # None: time is up

        def deliver(answer: Answer) -> None:  # a thread of the connection calls it
            with suppress(RuntimeError):  # somebody has closed the loop meanwhile
                loop.call_soon_threadsafe(answers.put_nowait, answer)

        call = Call(self, request, sampling or Sampling(), deadline_s, deliver)
        try:
            await asyncio.to_thread(call.start)
            while not call.ended:
                wait_s = call.patience.wait_s
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
                    continue  # the timer of an earlier answer put it there
                if (pause_s := call.again_s(answer)) is not None:
                    await asyncio.sleep(pause_s)
                    await asyncio.to_thread(call.start)
                elif (delta := call.read(answer)) is not None:
                    yield delta
        finally:
            await asyncio.shield(asyncio.to_thread(call.close))
