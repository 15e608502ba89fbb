"""What a request is as the body of an HTTP POST, and what stands in the body of an answer."""

import json
from typing import Any

from contract.errors import MissingExtra, from_wire
from contract.names import MODEL, UNARY_MODEL
from contract.sampling import Sampling
from contract.tasks import GENERATE
from contract.tensors import OUTPUTS
from edge_runtime.clients.http_steps import Ask, Reply
from edge_runtime.clients.infer_inputs import Tensors, infer_inputs
from edge_runtime.clients.shared_regions import Region
from edge_runtime.request import Request, sampling_json

try:
    import tritonclient.http as triton
except ImportError as error:
    raise MissingExtra("the HTTP client", "client") from error

HEADER_LENGTH = "Inference-Header-Content-Length"


def infer_message(tensors: Tensors, region: Region | None, left_s: float | None, *, is_upload: bool) -> Ask:
    """The tensors in KServe's binary form; this call copies the embeddings into the region where there is one.

    Args:
        left_s: seconds until the deadline. The server gets it, because it does not notice when such a client leaves.
        is_upload: the server only keeps items.
    """
    timeout_us = None if left_s is None else max(1, int(left_s * 1e6))
    make = triton.InferenceServerClient.generate_request_body
    body, json_size = make(infer_inputs(triton, tensors, region), timeout=timeout_us)
    headers = {"Content-Type": "application/octet-stream"}
    if json_size is not None:
        headers[HEADER_LENGTH] = str(json_size)
    return Ask(f"/v2/models/{UNARY_MODEL}/infer", body, headers, is_upload=is_upload)


def question_message(request: Request, sampling: Sampling, keys: list[str]) -> Ask:
    """The prompt and its items' keys as JSON; the answer is a stream."""
    asked: dict[str, Any] = {
        "input_ids": request.input_ids.tolist(),
        "sampling_parameters": sampling_json(sampling),
        "stream": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    if request.task != GENERATE:
        asked["task"] = request.task
    if keys:
        asked |= {"vision_keys": keys, "encoder_fingerprint": request.encoder_fingerprint}
    return Ask(f"/v2/models/{MODEL}/generate_stream", json.dumps(asked).encode(), is_stream=True)


def binary_outputs(reply: Reply) -> dict[str, list[Any]]:
    """The values of the outputs of a binary answer, by name.

    Raises:
        EdgeVlmError: the reply is an error, or its output `error` names one.
    """
    if (error := reply.error()) is not None:
        raise error
    length = {name.lower(): value for name, value in reply.headers.items()}.get(HEADER_LENGTH.lower())
    read = triton.InferenceServerClient.parse_response_body
    result = read(reply.body, header_length=int(length) if length else None)
    arrays = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
    outputs = {name: array.ravel().tolist() for name, array in arrays.items() if array is not None}
    if message := b"".join(outputs.get("error", ())).decode():
        raise from_wire(message)
    return outputs


def event_outputs(line: bytes) -> dict[str, list[Any]] | None:
    """The values of the outputs in a line of a stream of events, by name; None where the line holds none.

    Raises:
        ValueError: the line is cut.
    """
    if not line.startswith(b"data:"):
        return None
    values = json.loads(line[5:])
    return {name: value if isinstance(value, list) else [value] for name, value in values.items()}
