"""One request on a gRPC stream of its own: what the blocking and the asyncio client share.

A stream of its own, because a cancel ends every request of its stream and errors on a stream carry no request id. A
request is sent again in three cases only: nobody listened, or the server said before any work that it does not hold a
key, or does not know a region of shared memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import Any
from uuid import uuid4

from contract.errors import EdgeVlmError, InvalidInput, MissingExtra, NotFound, ServerError, Unavailable, from_wire
from contract.names import MODEL
from contract.sampling import Sampling
from contract.tensors import OUTPUTS
from edge_runtime.clients.connection import Connection, refused_region
from edge_runtime.clients.infer_inputs import NO_REGION, infer_inputs, num_items, sent_bytes, vision_bytes
from edge_runtime.clients.shared_regions import Region, retire
from edge_runtime.request import Delta, Request, learn_keys, read_delta

try:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    raise MissingExtra("the gRPC client", "client") from error

Answer = tuple[Any, "InferenceServerException | None"]
REFUSED = "failed to connect to all addresses"  # gRPC's words where no connection came about


def metadata(connection: Connection) -> dict[str, str] | None:
    """The headers as gRPC wants them: names in lower case, None for none."""
    return {name.lower(): value for name, value in connection.headers.items()} or None


def open_client(connection: Connection) -> "triton.InferenceServerClient":
    """A client of its own; gRPC keeps one connection for all of a process that speak to the same address."""
    if connection.tls is None:
        return triton.InferenceServerClient(connection.url)
    return triton.InferenceServerClient(connection.url, False, True, *connection.tls.names())


@contextmanager
def opened(connection: Connection) -> Iterator["triton.InferenceServerClient"]:
    """The same for a while, its errors as those of this package."""
    client = open_client(connection)
    try:
        yield client
    except InferenceServerException as error:
        raise typed(error) from error
    finally:
        client.close()


def typed(error: "InferenceServerException") -> EdgeVlmError:
    """tritonclient's error as one of this package: by the code in its text, else by gRPC's status."""
    failure, status = from_wire(error.message() or str(error)), str(error.status() or "").removeprefix("StatusCode.")
    if not isinstance(failure, ServerError):
        return failure
    if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return Unavailable(f"{error.message()}: is Triton running at this address, and is the deadline long enough?")
    return {"NOT_FOUND": NotFound, "INVALID_ARGUMENT": InvalidInput}.get(status, ServerError)(str(failure))


def server(connection: Connection) -> tuple[str, str]:
    """Name and version of the server."""
    with opened(connection) as client:
        found = client.get_server_metadata(metadata(connection), client_timeout=connection.timeout_s)
    return found.name, found.version


def parameters(connection: Connection, model: str = MODEL) -> dict[str, str]:
    """What the served model says of itself."""
    with opened(connection) as client:
        return _parameters(client, connection, model, connection.timeout_s)


def _parameters(client: Any, connection: Connection, model: str, timeout_s: float) -> dict[str, str]:
    config = client.get_model_config(model, headers=metadata(connection), client_timeout=timeout_s).config
    return {name: value.string_value for name, value in config.parameters.items()}


def unregister(connection: Connection, name: str) -> None:
    """Tell the server to let go of a region."""
    with opened(connection) as client:
        client.unregister_system_shared_memory(name, metadata(connection), client_timeout=connection.timeout_s)


def close(connection: Connection) -> None:
    """Give back what the connection holds: shared memory, if any."""
    for region in connection.regions.close():
        retire(region, lambda name: unregister(connection, name))


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
        self.patience = connection.patience(deadline_s)
        self._connection, self._request, self._sampling, self._deliver = connection, request, sampling, deliver
        self._num_answers = self._num_uploaded = self._upload_bytes = 0
        self._sent_keys: list[str] = []
        self._region: Region | None = None
        self._stream: Any = None
        self._is_final = self._is_closed = False
        self._repeated: set[str] = set()  # reasons for which the request was sent once more
        self._lock = Lock()  # a cancelled task may close while a thread still starts

    def start(self) -> None:
        """Open the stream and send the request; a stream that breaks says why through `deliver`. Blocks.

        Raises:
            InvalidInput: the server does not take this precision, or cannot open this machine's shared memory.
        """
        with self._lock:
            if self._is_closed:
                return
            self._end_stream()
            self._is_final = False
            self._stream = open_client(self._connection)
            try:
                inputs = self._prepare()
            except InferenceServerException as error:
                self._receive(None, error)
                return
            self._stream.start_stream(callback=self._receive, headers=metadata(self._connection))
            with suppress(InferenceServerException):
                self._stream.async_stream_infer(MODEL, inputs, request_id=uuid4().hex)

    def _prepare(self) -> list[Any]:
        connection, request = self._connection, self._request
        if not connection.is_checked:
            connection.check(_parameters(self._stream, connection, MODEL, self.patience.wait_s))
        tensors = request.tensors(self._sampling, connection.precision, held=connection.held)
        self._sent_keys = [key.decode() for key in tensors["vision_keys"] if key] if "vision_keys" in tensors else []
        if connection.shared_memory and (num_bytes := vision_bytes(tensors)):
            self._share(num_bytes)
        region = self._region if connection.shared_memory else None
        self._num_uploaded, self._upload_bytes = num_items(tensors), self._upload_bytes + sent_bytes(tensors, region)
        return infer_inputs(triton, tensors, region)

    def _share(self, num_bytes: int) -> None:
        """Have a region that is large enough, and that the server knows."""
        region = self._region or self._connection.regions.take()
        if region is not None and region.num_bytes < num_bytes:
            retire(region, lambda name: unregister(self._connection, name))
            region = None
        region = self._region = region or Region(num_bytes)
        if region.is_registered:
            return
        try:
            self._stream.register_system_shared_memory(
                region.name,
                region.key,
                region.num_bytes,
                headers=metadata(self._connection),
                client_timeout=self.patience.wait_s,
            )
        except InferenceServerException as error:
            if REFUSED in (error.message() or ""):
                raise
            raise InvalidInput(refused_region(self._connection.url, error.message())) from error
        region.is_registered = True

    def _receive(self, result: Any, error: "InferenceServerException | None") -> None:
        if error is not None or _is_final(result):
            self._is_final = True
        self._deliver((result, error))

    def again_s(self, answer: Answer) -> float | None:
        """Seconds after which to start again: the server has done nothing yet, and that can be helped. Else None."""
        error = answer[1]
        if error is None or self._num_answers:
            return None
        message = error.message() or ""
        if REFUSED in message:
            return self.patience.pause_s()
        if self._sent_keys and isinstance(typed(error), NotFound):
            reason = "keys"
            self._connection.held.forget(self._sent_keys)
        elif self._region is not None and NO_REGION in message:
            reason = "region"
            self._region.is_registered = False
        else:
            return None
        if reason in self._repeated:
            return None
        self._repeated.add(reason)
        return 0.0

    def read(self, answer: Answer) -> Delta | None:
        """The piece of text in an answer, if it has one.

        Raises:
            InvalidInput: the server refuses the request; NotFound, Unavailable, DeadlineExceeded, ServerError likewise.
        """
        result, error = answer
        if error is not None:
            self.ended = True
            failure = typed(error)
            if isinstance(failure, Unavailable) and self.patience.left_s == 0:
                raise self.patience.late()
            if self._num_answers and isinstance(failure, Unavailable):
                raise self.patience.lost(self._num_answers, error.message())
            raise failure
        self._num_answers += 1
        self.ended = _is_final(result)
        arrays = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
        outputs = {name: array.ravel().tolist() for name, array in arrays.items() if array is not None}
        if message := b"".join(outputs.get("error", ())).decode():
            raise from_wire(message)
        delta = read_delta(outputs)
        if delta.vision_keys:
            self._connection.held.add(delta.vision_keys)
            learn_keys(self._request.items, delta.vision_keys, self._connection.precision)
        return replace(delta, num_uploaded=self._num_uploaded, upload_bytes=self._upload_bytes) if outputs else None

    def close(self) -> None:
        """End the stream, and the request with it where its last answer has not come."""
        with self._lock:
            self._is_closed = True
            self._end_stream()
            region, self._region = self._region, None
        if region is not None and not self._connection.regions.give(region):
            retire(region, lambda name: unregister(self._connection, name))

    def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            _stop(stream, cancel_requests=not self._is_final)
            stream.close()


def _stop(client: Any, cancel_requests: bool) -> None:
    """End a client's stream. tritonclient leaves the thread that feeds a cancelled stream waiting for ever: it is told."""
    stream = client._stream
    client.stop_stream(cancel_requests=cancel_requests)
    if cancel_requests and stream is not None:
        stream._request_queue.put(None)


def _is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)
