"""One request on a gRPC stream of its own: what the blocking and the asyncio client share.

A stream of its own, because a cancel ends every request of its stream and errors on a stream carry no request id. Only a
request that never left is sent again: one that reached a server may have been answered there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from contract.errors import EdgeVlmError, InvalidInput, MissingExtra, Unavailable, from_wire
from contract.sampling import Sampling
from contract.tensors import MODEL, OUTPUTS
from edge_runtime.request import Delta, Precision, Request, read_delta

try:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype
except ImportError as error:
    raise MissingExtra("the gRPC client", "client") from error

Answer = tuple[Any, "InferenceServerException | None"]
REFUSED = "failed to connect to all addresses"  # gRPC's words where no connection came about
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 2.0


@dataclass(frozen=True)
class Tls:
    """Files in PEM form: whom to trust (None: gRPC's own list), and who we are where the server asks."""

    root_certificates: str | PathLike[str] | None = None
    private_key: str | PathLike[str] | None = None
    certificate_chain: str | PathLike[str] | None = None


@dataclass(frozen=True)
class Connection:
    """Where a server is and how it is spoken to; the arguments of the clients."""

    url: str
    timeout_s: float
    precision: Precision
    retry_s: float
    tls: Tls | None
    headers: dict[str, str]

    @property
    def metadata(self) -> dict[str, str] | None:
        """The headers as gRPC wants them: names in lower case, None for none."""
        return {name.lower(): value for name, value in self.headers.items()} or None

    def open(self) -> "triton.InferenceServerClient":
        """A client of its own.

        Raises:
            InvalidInput: a certificate file cannot be read.
        """
        if self.tls is None:
            return triton.InferenceServerClient(self.url)
        files = (self.tls.root_certificates, self.tls.private_key, self.tls.certificate_chain)
        names = [None if file is None else fspath(file) for file in files]
        for name in filter(
            None, names
        ):  # before tritonclient does: its half-made client fails once more when collected
            try:
                Path(name).read_bytes()
            except OSError as error:
                raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
        return triton.InferenceServerClient(self.url, False, True, *names)


@contextmanager
def typed_errors() -> Iterator[None]:
    """tritonclient's errors as those of this package."""
    try:
        yield
    except InferenceServerException as error:
        raise _typed(error) from error


def _typed(error: "InferenceServerException") -> EdgeVlmError:
    status = str(error.status() or "")
    if any(word in status for word in ("UNAVAILABLE", "DEADLINE_EXCEEDED")):
        return Unavailable(f"{error.message()}: is Triton running at this address, and is the deadline long enough?")
    return from_wire(error.message() or str(error))


class Call:
    """A request under way. `deliver` is called with every answer, from a thread of the connection.

    Args:
        deadline_s: longest time for the whole answer; None leaves only the wait for each piece bounded.
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        sampling: Sampling,
        deadline_s: float | None,
        deliver: Callable[[Answer], None],
    ) -> None:
        self.ended = False
        self._connection, self._deliver, self._deadline_s = connection, deliver, deadline_s
        self._tensors = request.tensors(sampling, connection.precision)
        self._begun, self._pause_s, self._num_answers = time.monotonic(), FIRST_PAUSE_S, 0
        self._stream: Any = None
        self._is_final = False

    def start(self) -> None:
        """Open the stream and send the request; a stream that breaks says why through `deliver`."""
        self.close()
        self._is_final = False
        self._stream = self._connection.open()
        self._stream.start_stream(callback=self._receive, headers=self._connection.metadata)
        with suppress(InferenceServerException):
            self._stream.async_stream_infer(MODEL, _inputs(self._tensors), request_id=uuid4().hex)

    def _receive(self, result: Any, error: "InferenceServerException | None") -> None:
        if error is not None or _is_final(result):
            self._is_final = True
        self._deliver((result, error))

    def wait_s(self) -> float:
        """Longest wait for the next answer."""
        if self._deadline_s is None:
            return self._connection.timeout_s
        return max(0.0, min(self._connection.timeout_s, self._begun + self._deadline_s - time.monotonic()))

    def late(self) -> Unavailable:
        """The error when that wait has passed."""
        url, timeout_s = self._connection.url, self._connection.timeout_s
        if self._deadline_s is not None and time.monotonic() - self._begun >= self._deadline_s:
            return Unavailable(f"{url}: the answer took longer than its deadline of {self._deadline_s} s")
        return Unavailable(f"{url} sent nothing for {timeout_s} s: raise timeout_s or look at the server")

    def retry_pause_s(self, answer: Answer) -> float | None:
        """Seconds after which to start again: nobody listened, so nothing was sent, and there is time. Else None."""
        error, now = answer[1], time.monotonic()
        if error is None or self._num_answers or REFUSED not in (error.message() or ""):
            return None
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LAST_PAUSE_S)
        is_in_time = self._deadline_s is None or now + pause_s < self._begun + self._deadline_s
        return pause_s if is_in_time and now + pause_s < self._begun + self._connection.retry_s else None

    def read(self, answer: Answer) -> Delta | None:
        """The piece of text in an answer, if it has one.

        Raises:
            InvalidInput: the server refuses the request; NotFound, Unavailable, ServerError likewise.
        """
        result, error = answer
        if error is not None:
            self.ended = True
            failure = _typed(error)
            if self._num_answers and isinstance(failure, Unavailable):
                raise Unavailable(
                    f"{self._connection.url} was lost after {self._num_answers} pieces of the answer: {error.message()}; "
                    "the rest is gone, ask again"
                )
            raise failure
        self._num_answers += 1
        self.ended = _is_final(result)
        outputs = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
        if (said := outputs["error"]) is not None and (message := b"".join(said.tolist()).decode()):
            raise from_wire(message)
        return (
            read_delta({k: v for k, v in outputs.items() if v is not None})
            if outputs["text_output"] is not None
            else None
        )

    def close(self) -> None:
        """End the stream, and the request with it where its last answer has not come."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.stop_stream(cancel_requests=not self._is_final)
            stream.close()


def _is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


def _inputs(tensors: dict[str, NDArray[Any]]) -> list[Any]:
    inputs = []
    for name, array in tensors.items():
        datatype = "BYTES" if array.dtype == np.object_ else np_to_triton_dtype(array.dtype)
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(tensor)
    return inputs
