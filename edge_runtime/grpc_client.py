"""Answers streamed over gRPC from the decoupled model, in a loop that blocks."""

import queue
import time
from collections.abc import Generator
from types import TracebackType

from contract.sampling import Sampling
from contract.tensors import MODEL
from edge_runtime.grpc_call import Answer, Call, Connection, Tls, typed_errors
from edge_runtime.request import Delta, Precision, Request


class GrpcClient:
    """A connection to Triton's gRPC port.

    Args:
        url: host:port.
        timeout_s: longest wait for the next piece of an answer, in seconds.
        precision: type the embeddings travel in.
        retry_s: how long to keep trying while nobody listens at the address (a server that starts); what a server
            has received is never sent twice.
        tls: encrypt, with these certificates; None speaks plain text.
        headers: metadata sent with every request, such as authorization.
    """

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
        self._client = self._connection.open()

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def server(self) -> tuple[str, str]:
        """Name and version of the server.

        Raises:
            Unavailable: nobody answers.
        """
        timeout_s, headers = self._connection.timeout_s, self._connection.metadata
        with typed_errors():
            metadata = self._client.get_server_metadata(headers, client_timeout=timeout_s)
        return metadata.name, metadata.version

    def parameters(self, model: str = MODEL) -> dict[str, str]:
        """What the served model says of itself: widths, limits, fingerprint.

        Raises:
            NotFound, Unavailable: no such model, or nobody answers.
        """
        timeout_s, headers = self._connection.timeout_s, self._connection.metadata
        with typed_errors():
            config = self._client.get_model_config(model, headers=headers, client_timeout=timeout_s).config
        return {name: value.string_value for name, value in config.parameters.items()}

    def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> Generator[Delta, None, None]:
        """Send a request and yield its answer piece by piece; closing the iterator cancels it on the server.

        Args:
            deadline_s: longest time for the whole answer, in seconds; None bounds only the wait for each piece.

        Raises:
            InvalidInput: the server refuses the request; NotFound, ServerError likewise.
            Unavailable: nobody listens, the answer is late, or the connection was lost in the middle of it.
        """
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        call = Call(self._connection, request, sampling or Sampling(), deadline_s, answers.put)
        try:
            call.start()
            while not call.ended:
                try:
                    answer = answers.get(timeout=call.wait_s())
                except queue.Empty:
                    raise call.late() from None
                if (pause_s := call.retry_pause_s(answer)) is not None:
                    time.sleep(pause_s)
                    call.start()
                elif (delta := call.read(answer)) is not None:
                    yield delta
        finally:
            call.close()
