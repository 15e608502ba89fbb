"""One request on one gRPC stream: what the blocking and the asyncio client share.

Each request has a stream, because a cancel ends every request of its stream and errors on a stream carry no request id.
The streams of a client share its network connection. A client sends a request again in five cases only: nobody listens,
or the server says before any work that it is about to leave, that it does not hold a key, or that it does not know a
region of shared memory or a codec.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock, Thread
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import InferResult

from contract.errors import EdgeVlmError, InvalidInput, NotFound, Unavailable, from_wire
from contract.sampling import Sampling
from contract.tensors import OUTPUTS
from edge_runtime.clients.affinity import affinity
from edge_runtime.clients.connection import refused_region
from edge_runtime.clients.grpc_channel import (
    AWAY,
    REFUSED,
    Channel,
    GrpcConnection,
    metadata,
    parameters,
    register,
    typed,
    unregister,
)
from edge_runtime.clients.grpc_message import infer_message
from edge_runtime.clients.infer_inputs import NO_REGION, num_items, sent_bytes, vision_bytes
from edge_runtime.clients.patience import LEAVING
from edge_runtime.clients.shared_regions import Region, retire
from edge_runtime.encoded_item import Precision
from edge_runtime.request import Delta, Request, learn_keys, read_delta


@dataclass(frozen=True)
class Failure:
    """What went wrong, in the server's words, or in gRPC's with its code."""

    message: str
    code: grpc.StatusCode | None = None


Answer: TypeAlias = InferResult | Failure


class Call:
    """A request under way.

    Args:
        deadline_s: the longest time for the whole answer, in seconds; None bounds only the wait for each piece.
        deliver: a thread of the connection calls it with every answer.
    """

    def __init__(
        self,
        connection: GrpcConnection,
        request: Request,
        sampling: Sampling,
        deadline_s: float | None,
        deliver: Callable[[Answer], None],
    ) -> None:
        self.ended = False
        self.patience = connection.patience(deadline_s)
        self._connection, self._request, self._sampling, self._deliver = connection, request, sampling, deliver
        self._num_answers = self._num_uploaded = self._upload_bytes = self._message_bytes = 0
        self._sent_s = 0.0
        self._precision: Precision = "fp16"
        self._fallback = ""
        self._sent_keys: list[str] = []
        self._region: Region | None = None
        self._stream: Any = None
        self._is_final = self._is_late = self._is_closed = False
        self._repeated: set[str] = set()  # the reasons for which this call has sent the request once more
        self._lock = Lock()  # a cancelled task may close while a thread still starts

    def start(self) -> None:
        """Open the stream and send the request; a stream that breaks says why through `deliver`. Blocks.

        Raises:
            InvalidInput: the server takes no precision that serves, or cannot open this machine's shared memory.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_final = False
            try:
                message = self._message()
            except Unavailable as error:
                self._deliver(_failure(error.__cause__))
                return
            connection = self._connection
            channel = connection.channels.take(lambda: Channel(connection))
            self._sent_s = time.perf_counter()
            # the iterator closes the client's side at once, so that the server's last answer ends the stream
            self._stream = channel.server.ModelStreamInfer(iter((message,)), metadata=self._headers())
            Thread(target=self._receive, args=(channel, self._stream), name="answers", daemon=True).start()

    def _headers(self) -> list[tuple[str, str]]:
        connection = self._connection
        chosen = affinity(connection.headers, self._request, self.patience.num_refused)
        return [*metadata(connection), *chosen.items()]

    def _message(self) -> Any:
        connection, request = self._connection, self._request
        if connection.needs_facts(request):
            connection.note(parameters(connection, timeout_s=self.patience.wait_s))
        request, self._precision, self._fallback = connection.prepared(request)
        self._request = request
        held = () if "keys" in self._repeated else connection.held  # the second time all rows travel
        tensors = request.tensors(self._sampling, self._precision, held=held)
        self._sent_keys = [key.decode() for key in tensors["vision_keys"] if key] if "vision_keys" in tensors else []
        if connection.shared_memory and (num_bytes := vision_bytes(tensors)):
            self._share(num_bytes)
        region = self._region if connection.shared_memory else None
        self._num_uploaded, self._message_bytes = num_items(tensors), sent_bytes(tensors, region)
        self._upload_bytes += self._message_bytes
        return infer_message(tensors, region)

    def _share(self, num_bytes: int) -> None:
        """Take a region that is large enough, and register it where the server does not know it."""
        region = self._region or self._connection.regions.take()
        if region is not None and region.num_bytes < num_bytes:
            retire(region, lambda name: unregister(self._connection, name))
            region = None
        region = self._region = region or Region(num_bytes)
        if region.is_registered:
            return
        try:
            register(self._connection, region, self.patience.wait_s)
        except Unavailable:
            raise
        except EdgeVlmError as error:
            raise InvalidInput(refused_region(self._connection.url, error)) from error

    def _receive(self, channel: Channel, stream: Any) -> None:
        """Hand over every answer of a stream. A separate thread runs this."""
        failure, is_final, is_leaving = None, False, False
        try:
            for response in stream:
                is_failure = bool(response.error_message)
                answer = Failure(response.error_message) if is_failure else InferResult(response.infer_response)
                is_leaving = is_leaving or LEAVING in response.error_message
                is_final = is_final or is_failure or _is_final(answer)
                if stream is self._stream:  # else this call has cancelled the stream, or opened a new one
                    self._is_final = is_final
                    self._deliver(answer)
            if not is_final:
                failure = Failure("the stream ended before the last answer", grpc.StatusCode.UNAVAILABLE)
        except grpc.RpcError as error:
            failure = _failure(error)
        is_broken = self._is_late or is_leaving or (failure is not None and failure.code in AWAY)
        self._connection.channels.give(channel, is_broken=is_broken)
        if failure is not None and stream is self._stream and not is_final:
            self._is_final = True
            self._deliver(failure)

    def again_s(self, answer: Answer) -> float | None:
        """Seconds after which to start again, where the server has not begun and a new try may help; else None."""
        if not isinstance(answer, Failure) or self._num_answers:
            return None
        if REFUSED in answer.message:
            return self.patience.pause_s()
        if LEAVING in answer.message:
            return self.patience.elsewhere_s()
        if self._sent_keys and isinstance(typed(answer.message, answer.code), NotFound):
            reason = "keys"
            self._connection.held.forget(self._sent_keys)
            self._connection.held.miss()
        elif self._region is not None and NO_REGION in answer.message:
            reason = "region"
            self._region.is_registered = False
        elif self._connection.is_outdated(answer.message):
            reason = "codec"
        else:
            return None
        if reason in self._repeated:
            return None
        self._repeated.add(reason)
        return 0.0

    def read(self, answer: Answer) -> Delta | None:
        """The piece of text in an answer, if it has one.

        Raises:
            InvalidInput, NotFound, Unavailable, DeadlineExceeded, ServerError: what the server says.
        """
        if isinstance(answer, Failure):
            self.ended = True
            failure = typed(answer.message, answer.code)
            if isinstance(failure, Unavailable) and self.patience.left_s == 0:
                raise self.patience.late()
            if self._num_answers and isinstance(failure, Unavailable):
                raise self.patience.lost(self._num_answers, answer.message)
            raise failure
        if self._sent_keys and not self._num_answers:
            self._connection.held.hit()
        if not self._num_answers:  # gRPC itself calls bytes sent that still wait in this machine's buffers
            self._connection.uplink.add(self._message_bytes, time.perf_counter() - self._sent_s)
        self._num_answers += 1
        self.ended = _is_final(answer)
        arrays = {spec.name: answer.as_numpy(spec.name) for spec in OUTPUTS}
        outputs = {name: array.ravel().tolist() for name, array in arrays.items() if array is not None}
        if message := b"".join(outputs.get("error", ())).decode():
            raise from_wire(message)
        delta = read_delta(outputs)
        if delta.vision_keys:
            self._connection.held.add(delta.vision_keys)
            learn_keys(self._request.items, delta.vision_keys, self._precision)
        if not outputs:
            return None
        return replace(
            delta,
            num_uploaded=self._num_uploaded,
            upload_bytes=self._upload_bytes,
            precision=self._precision,
            fallback=self._fallback,
        )

    def late(self) -> EdgeVlmError:
        """The error when the next answer is late; the network connection may be dead, so no new request uses it."""
        self._is_late = True
        return self.patience.late()

    def close(self) -> None:
        """End the stream, and the request with it where its last answer has not come."""
        with self._lock:
            self._is_closed = True
            stream, self._stream = self._stream, None
            if stream is not None and not self._is_final:
                stream.cancel()
            region, self._region = self._region, None
        if region is not None and not self._connection.regions.give(region):
            retire(region, lambda name: unregister(self._connection, name))


def _failure(error: Any) -> Failure:
    """The failure in an error of gRPC; typed makes an error of this package from it."""
    return Failure(error.details() or "", error.code())


def _is_final(result: InferResult) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)
