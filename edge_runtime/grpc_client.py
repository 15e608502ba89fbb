"""Answers streamed over gRPC from the decoupled model.

One stream a request: a cancel ends every request of its stream, and errors on a stream carry no request id.
"""

import queue
from collections.abc import Generator
from contextlib import suppress
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from contract.errors import EdgeVlmError, MissingExtra, Unavailable, from_wire
from contract.sampling import Sampling
from contract.tensors import MODEL, OUTPUTS
from edge_runtime.request import Delta, Precision, Request, read_delta

try:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype
except ImportError as error:
    raise MissingExtra("the gRPC client", "client") from error


def _typed(error: "InferenceServerException") -> EdgeVlmError:
    status = str(error.status() or "")
    if any(word in status for word in ("UNAVAILABLE", "DEADLINE_EXCEEDED")):
        return Unavailable(f"{error.message()}: is Triton running at this address, and is the deadline long enough?")
    return from_wire(error.message() or str(error))


class GrpcClient:
    """A connection to Triton's gRPC port.

    Args:
        url: host:port.
        timeout_s: longest wait for the next piece of an answer, in seconds.
        precision: type the embeddings travel in.
    """

    def __init__(self, url: str = "127.0.0.1:8001", *, timeout_s: float = 60.0, precision: Precision = "fp16") -> None:
        self._url, self._timeout_s, self._precision = url, timeout_s, precision
        self._client = triton.InferenceServerClient(url)

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
        try:
            metadata = self._client.get_server_metadata(client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise _typed(error) from error
        return metadata.name, metadata.version

    def parameters(self, model: str = MODEL) -> dict[str, str]:
        """What the served model says of itself: widths, limits, fingerprint.

        Raises:
            NotFound, Unavailable: no such model, or nobody answers.
        """
        try:
            config = self._client.get_model_config(model, client_timeout=self._timeout_s).config
        except InferenceServerException as error:
            raise _typed(error) from error
        return {name: value.string_value for name, value in config.parameters.items()}

    def stream(self, request: Request, sampling: Sampling | None = None) -> Generator[Delta, None, None]:
        """Send a request and yield its answer piece by piece; closing the iterator cancels it on the server.

        Raises:
            InvalidInput: the server refuses the request; NotFound, Unavailable, ServerError likewise.
        """
        answers: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()
        stream = triton.InferenceServerClient(self._url)
        ended = False
        try:
            stream.start_stream(callback=lambda result, error: answers.put((result, error)))
            tensors = request.tensors(sampling or Sampling(), self._precision)
            with suppress(InferenceServerException):  # a stream that broke says why through the callback
                stream.async_stream_infer(MODEL, _inputs(tensors), request_id=uuid4().hex)
            while not ended:
                try:
                    result, error = answers.get(timeout=self._timeout_s)
                except queue.Empty:
                    raise Unavailable(
                        f"{self._url} sent nothing for {self._timeout_s} s: raise timeout_s or look at the server"
                    ) from None
                if error is not None:
                    ended = True
                    raise _typed(error)
                response = result.get_response()
                ended = response.parameters["triton_final_response"].bool_param
                outputs = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
                if (failure := outputs["error"]) is not None and (message := b"".join(failure.tolist()).decode()):
                    raise from_wire(message)
                if outputs["text_output"] is not None:
                    yield read_delta({k: v for k, v in outputs.items() if v is not None})
        finally:
            stream.stop_stream(cancel_requests=not ended)
            stream.close()


def _inputs(tensors: dict[str, NDArray[Any]]) -> list[Any]:
    inputs = []
    for name, array in tensors.items():
        datatype = "BYTES" if array.dtype == np.object_ else np_to_triton_dtype(array.dtype)
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs
