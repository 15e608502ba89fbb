"""Each door of a server for a request of any shape, and what its caller saw."""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.names import MODEL, UNARY_MODEL
from tests.hostile.requests import Hostile

BOUND_SECONDS = 30.0  # every request ends within it
SERVED, REFUSED, TRITON, INTERNAL, HANG, BROKEN = "served", "refused", "triton", "internal", "hang", "broken"
OURS = ("[INVALID_ARG]", "[NOT_FOUND]", "[UNAVAILABLE]", "[DEADLINE_EXCEEDED]")


@dataclass(frozen=True)
class Outcome:
    """What a caller saw. REFUSED are our own words, TRITON those of Triton, which judges before we do."""

    kind: str
    text: str
    seconds: float


def judged(text: str, seconds: float, *, is_error: bool) -> Outcome:
    if not is_error:
        return Outcome(SERVED, text, seconds)
    if "[INTERNAL]" in text:
        return Outcome(INTERNAL, text, seconds)
    return Outcome(REFUSED if any(code in text for code in OURS) else TRITON, text, seconds)


class Doors:
    """Connections to one server. Not to be shared between threads."""

    def __init__(self, http_url: str, grpc_url: str) -> None:
        self.http_url = http_url
        self.channel = grpc.insecure_channel(grpc_url, options=[("grpc.max_send_message_length", -1)])
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def stream(self, request: Hostile) -> Outcome:
        """gRPC to the decoupled model, read to its end: Triton keeps some memory of each stream that is cancelled."""
        begun, seen = time.monotonic(), None
        try:
            for answer in self.stub.ModelStreamInfer(iter([message(MODEL, request)]), timeout=BOUND_SECONDS):
                if answer.error_message:
                    seen = judged(answer.error_message, time.monotonic() - begun, is_error=True)
                elif answer.infer_response.parameters["triton_final_response"].bool_param:
                    seen = seen or judged("", time.monotonic() - begun, is_error=False)
        except grpc.RpcError as error:
            return failed(error, time.monotonic() - begun)
        return seen or Outcome(BROKEN, "the stream ended without a final response", time.monotonic() - begun)

    def unary(self, request: Hostile) -> Outcome:
        """gRPC to the model of one response."""
        begun = time.monotonic()
        try:
            self.stub.ModelInfer(message(UNARY_MODEL, request), timeout=BOUND_SECONDS)
        except grpc.RpcError as error:
            return failed(error, time.monotonic() - begun)
        return judged("", time.monotonic() - begun, is_error=False)

    def infer(self, request: Hostile) -> Outcome:
        """HTTP with binary tensors to the model of one response."""
        inputs = [
            {
                "name": t.name,
                "datatype": t.datatype,
                "shape": list(t.shape),
                "parameters": {"binary_data_size": len(t.data)},
            }
            for t in request.tensors
        ]
        head = json.dumps({"id": request.id, "inputs": inputs, "parameters": request.parameters}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return self.post(f"{UNARY_MODEL}/infer", head + b"".join(t.data for t in request.tensors), headers)

    def generate(self, body: bytes) -> Outcome:
        return self.post(f"{UNARY_MODEL}/generate", body)

    def generate_stream(self, body: bytes) -> Outcome:
        return self.post(f"{MODEL}/generate_stream", body)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Outcome:
        """Any body to any of the models' paths over HTTP."""
        begun = time.monotonic()
        answered = posted(self.http_url, f"/v2/models/{path}", body, headers or {})
        if isinstance(answered, Outcome):
            return answered
        answer, text = answered
        return judged(text, time.monotonic() - begun, is_error=answer.status != 200 or '"error":' in text)


def posted(
    address: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, str] | Outcome:
    """An answer and its text, or how there was none: a hang, or a connection that broke.

    Args:
        address: host:port.
    """
    begun = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=BOUND_SECONDS)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read().decode("utf-8", "replace")
    except TimeoutError:
        return Outcome(HANG, path, time.monotonic() - begun)
    except (OSError, http.client.HTTPException) as error:
        return Outcome(BROKEN, repr(error), time.monotonic() - begun)
    finally:
        connection.close()


def message(model: str, request: Hostile) -> Any:
    """The protobuf message of a request."""
    made = service_pb2.ModelInferRequest(model_name=model, id=request.id)
    for tensor in request.tensors:
        made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        made.raw_input_contents.append(tensor.data)
    for name, value in request.parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(made.parameters[name], kind, value)
    return made


def failed(error: grpc.RpcError, seconds: float) -> Outcome:
    """What a call that grpc ended with an error counts as."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and seconds >= BOUND_SECONDS:
        return Outcome(HANG, error.details(), seconds)
    if error.code() is grpc.StatusCode.UNAVAILABLE and not any(code in error.details() for code in OURS):
        return Outcome(BROKEN, error.details(), seconds)
    return judged(error.details(), seconds, is_error=True)
