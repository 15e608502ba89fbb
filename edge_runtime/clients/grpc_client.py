"""Answers that stream over gRPC from the decoupled model, in a loop that blocks."""

import queue
import time
from collections.abc import Generator
from dataclasses import dataclass

from contract.names import MODEL
from contract.sampling import Sampling
from edge_runtime.clients import grpc_channel
from edge_runtime.clients.closing import Blocking
from edge_runtime.clients.grpc_call import Answer, Call
from edge_runtime.clients.grpc_channel import GrpcConnection
from edge_runtime.request import Delta, Request


@dataclass(eq=False)
class GrpcClient(GrpcConnection, Blocking):
    """A connection to Triton's gRPC port; see Connection for the arguments. Safe to share between threads."""

    def close(self) -> None:
        """Give back what the client holds between requests: its connections, and shared memory where that is on."""
        grpc_channel.close(self)

    def server(self) -> tuple[str, str]:
        """Name and version of the server.

        Raises:
            Unavailable: nobody answers.
        """
        return grpc_channel.server(self)

    def parameters(self, model: str = MODEL) -> dict[str, str]:
        """What the served model says of itself: widths, limits, fingerprint.

        Raises:
            NotFound: the server has no such model.
            Unavailable: nobody answers.
        """
        return grpc_channel.parameters(self, model)

    def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> Generator[Delta, None, None]:
        """Send a request and yield its answer piece by piece.

        A program that closes the iterator cancels the request on the server. Pictures and videos that this client has
        sent before travel as keys, as long as the server holds them.

        Args:
            deadline_s: the longest time for the whole answer, in seconds; None bounds only the wait for each piece.

        Raises:
            InvalidInput, NotFound, ServerError: the server says so.
            DeadlineExceeded: deadline_s has passed, or the request waits too long in the server's queue.
            Unavailable: nobody listens, the next piece is late, or the connection breaks in the middle of the answer.
        """
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        call = Call(self, request, sampling or Sampling(), deadline_s, answers.put)
        try:
            call.start()
            while not call.ended:
                try:
                    answer = answers.get(timeout=call.patience.wait_s)
                except queue.Empty:
                    raise call.late() from None
                if (pause_s := call.again_s(answer)) is not None:
                    time.sleep(pause_s)
                    call.start()
                elif (delta := call.read(answer)) is not None:
                    yield delta
        finally:
            call.close()
