"""One request over HTTP, without the sockets: what to send next and what an answer means, for both HTTP clients.

JSON cannot carry FP16, so pictures go first, in KServe's binary form, to the unary model, which keeps them and answers
with their keys; then the question goes with the keys to generate_stream, which answers with server-sent events. `infer`
is one binary request with one answer. The steps are generators: they yield what to send, and the client sends them what
comes back.
"""

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from contract.errors import EdgeVlmError, InvalidInput, NotFound, ServerError, Unavailable, from_wire
from contract.names import MODEL
from contract.sampling import Sampling
from edge_runtime.clients.affinity import affinity
from edge_runtime.clients.connection import Connection
from edge_runtime.clients.http_message import binary_outputs, event_outputs, infer_message, question_message
from edge_runtime.clients.http_region import register, retire
from edge_runtime.clients.http_steps import Ask, Reply, Steps
from edge_runtime.clients.infer_inputs import NO_REGION, Tensors, num_items, sent_bytes, vision_bytes
from edge_runtime.clients.patience import LEAVING
from edge_runtime.clients.shared_regions import Region
from edge_runtime.encoded_item import EncodedItem, Precision
from edge_runtime.request import Delta, Request, learn_keys, read_delta, sampling_json, text_tensor


class HttpCall:
    """A request under way.

    Attributes:
        value: the result of the steps, when they are over.
        whole: the answer of `stream` where it came in one piece, because no server held the pictures; else None.
        patience: how long the next wait may take.
    """

    def __init__(self, connection: Connection, deadline_s: float | None = None) -> None:
        self.value: Any = None
        self.whole: Delta | None = None
        self.patience = connection.patience(deadline_s)
        self._connection = connection
        self._num_pieces = self._num_uploaded = self._upload_bytes = 0
        self._is_final = False
        self._region: Region | None = None
        self._asked: Request | None = None  # all requests of this call have its affinity
        self._precision: Precision = "fp16"
        self._fallback = ""

    def server(self) -> Steps:
        """Name and version of the server."""
        found = (yield Ask("/v2")).json()
        self.value = found["name"], found["version"]

    def parameters(self, model: str) -> Steps:
        """What a served model says of itself."""
        config = (yield Ask(f"/v2/models/{model}/config")).json()
        self.value = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}

    def infer(self, request: Request, sampling: Sampling) -> Steps:
        """One request and its whole answer, a Delta."""
        connection = self._connection
        request = self._asked = yield from self._prepared(request)
        tensors = request.tensors(sampling, self._precision, stream=False, held=connection.held)
        reply = yield from self._infer(tensors)
        if connection.is_outdated(reply.error()):
            request = self._asked = yield from self._prepared(request)
            tensors = request.tensors(sampling, self._precision, stream=False, held=connection.held)
            reply = yield from self._infer(tensors)
        if isinstance(reply.error(), NotFound) and "vision_keys" in tensors:
            connection.held.forget(request.keys(self._precision))
            connection.held.miss()
            reply = yield from self._infer(request.tensors(sampling, self._precision, stream=False))
        self.value = delta = self._counted(read_delta(binary_outputs(reply)))
        connection.held.add(delta.vision_keys)
        learn_keys(request.items, delta.vision_keys, self._precision)
        if delta.finish_reason == "cancelled" and self.patience.left_s == 0:
            raise self.patience.late()  # the server knows the deadline, too, and saw it first

    def stream(self, request: Request, sampling: Sampling) -> Steps:
        """Send the pictures that the server does not hold, then the question; `piece` gives the pieces of the answer.

        A server that does not know the pictures just after the upload is another one: then all goes in one request,
        whose whole answer is the only piece.
        """
        connection = self._connection
        request = self._asked = yield from self._prepared(request)
        keys: list[str] = []
        for _ in range(2 if connection.held.is_useful or not request.items else 0):
            missing = request.missing(self._precision, connection.held)
            if missing and not (yield from self._upload(request, missing)):
                request = self._asked = yield from self._prepared(request)
                continue
            keys = request.keys(self._precision)
            question = question_message(request, sampling, keys)
            self._upload_bytes += len(question.body or b"")
            reply = yield from self._sent(question)
            error = reply.error()
            if error is None:
                if keys:
                    connection.held.hit()
                if not self._is_final:
                    raise self.patience.lost(self._num_pieces, "the stream ended")
                return
            if not keys or not isinstance(error, NotFound):
                raise error
            connection.held.forget(keys)
            connection.held.miss()
        yield from self.infer(request, sampling)
        self.whole = self.value

    def piece(self, line: bytes) -> Delta | None:
        """The piece of an answer in a line of a stream, if it has one.

        Raises:
            EdgeVlmError: the server says that it failed.
        """
        try:
            outputs = event_outputs(line)
        except ValueError as error:
            raise self.patience.lost(self._num_pieces, "the stream ended within a line") from error
        if outputs is None:
            return None
        if message := "".join(outputs.get("error", ())):
            raise from_wire(message)
        self._num_pieces += 1
        delta = self._counted(read_delta(outputs))
        self._connection.held.add(delta.vision_keys)
        self._is_final = bool(delta.finish_reason)
        return delta

    def broken(self, why: BaseException, is_http: bool = True) -> EdgeVlmError:
        """The error when an open connection breaks, or carries something else than HTTP; the client does not repeat a
        request that the server may have."""
        if self._num_pieces:
            return self.patience.lost(self._num_pieces, why)
        if not is_http:
            return Unavailable(
                f"{self._connection.url}: what listens there speaks no HTTP. Is it Triton's gRPC port? Write host:port for it"
            )
        return Unavailable(f"{self._connection.url}: the connection broke before an answer: {why!r}; ask again")

    def unreachable(self, why: BaseException) -> float:
        """Seconds after which to connect again.

        Raises:
            Unavailable: the time to keep trying is over.
        """
        if (pause_s := self.patience.pause_s()) is None:
            raise Unavailable(f"{self._connection.url}: {why}: is Triton running at this address?") from why
        return pause_s

    def close(self) -> Steps:
        """Give back the connection's shared memory."""
        regions = self._connection.regions.close()
        try:
            for region in regions:
                yield from retire(region)
        finally:
            for region in regions:
                region.unlink()

    def release(self) -> Steps:
        """Give back what this call holds; the client runs these steps whatever happens."""
        region, self._region = self._region, None
        if region is not None and not self._connection.regions.give(region):
            yield from retire(region)

    def _prepared(self, request: Request) -> Generator[Ask, Reply, Request]:
        """The request as this server takes it; sets the precision in which its rows travel."""
        if self._connection.needs_facts(request):
            yield from self.parameters(MODEL)
            self._connection.note(self.value)
        request, self._precision, self._fallback = self._connection.prepared(request)
        return request

    def _upload(self, request: Request, missing: list[EncodedItem]) -> Generator[Ask, Reply, bool]:
        """Have the server keep items, without a question; where there is no prompt, pictures stand before videos.

        It returns False where the server refuses a codec that it has published.
        """
        connection = self._connection
        items = sorted(missing, key=lambda item: item.is_video)
        tensors = request.vision_tensors(items, self._precision)
        tensors["sampling_parameters"] = text_tensor(sampling_json(Sampling(max_tokens=0)))
        began, before = time.perf_counter(), self._upload_bytes
        reply = yield from self._infer(tensors, is_upload=True)
        if connection.is_outdated(reply.error()):
            return False
        if isinstance(reply.error(), InvalidInput):
            yield from self.parameters(MODEL)
            if self.value.get("max_reuse_bytes") == "0":
                raise InvalidInput(
                    f"{connection.url} keeps no embeddings (max_reuse_bytes is 0), and JSON cannot carry them: use infer, "
                    "or gRPC"
                )
        keys = read_delta(binary_outputs(reply)).vision_keys
        if len(keys) != len(items) or not all(keys):  # what connection.held says, another request may change meanwhile
            raise ServerError(
                f"{connection.url} did not keep all of {len(items)} items: raise its max_reuse_bytes, or use infer or gRPC"
            )
        connection.uplink.add(self._upload_bytes - before, time.perf_counter() - began)
        connection.held.add(keys)
        learn_keys(items, keys, self._precision)
        return True

    def _sent(self, ask: Ask) -> Generator[Ask, Reply, Reply]:
        """The answer of a server that stays; one that is about to leave sends requests away before any work."""
        pause_s = 0.0
        while True:
            own = (
                {}
                if self._asked is None
                else affinity(self._connection.headers, self._asked, self.patience.num_refused)
            )
            reply = yield replace(ask, headers={**ask.headers, **own}, pause_s=pause_s)
            if LEAVING not in str(reply.error()) or (again_s := self.patience.elsewhere_s()) is None:
                return reply
            pause_s = again_s

    def _infer(self, tensors: Tensors, *, is_upload: bool = False) -> Generator[Ask, Reply, Reply]:
        num_bytes = vision_bytes(tensors) if self._connection.shared_memory else 0
        for _ in range(2):
            if num_bytes:
                yield from self._share(num_bytes)
            region = self._region if num_bytes else None
            self._num_uploaded = max(self._num_uploaded, num_items(tensors))
            self._upload_bytes += sent_bytes(tensors, region)
            message = infer_message(tensors, region, self.patience.left_s, is_upload=is_upload)
            reply = yield from self._sent(message)
            error = reply.error()
            if error is None or self._region is None or NO_REGION not in str(error):
                break
            self._region.is_registered = False  # the server has started anew
        return reply

    def _share(self, num_bytes: int) -> Steps:
        """Take a region that is large enough, and register it where the server does not know it."""
        region = self._region or self._connection.regions.take()
        if region is not None and region.num_bytes < num_bytes:
            yield from retire(region)
            region = None
        region = self._region = region or Region(num_bytes)
        if not region.is_registered:
            yield from register(region, self._connection.url)

    def _counted(self, delta: Delta) -> Delta:
        return replace(
            delta,
            num_uploaded=self._num_uploaded,
            upload_bytes=self._upload_bytes,
            precision=self._precision,
            fallback=self._fallback,
        )
