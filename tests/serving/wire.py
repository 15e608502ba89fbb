"""A case as tritonclient sends it, and the two ways of asking: one stream a request, or one response."""

import json
import queue
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from contract.names import MODEL, UNARY_MODEL
from tests.serving.reference import FINGERPRINT, MAX_NEW_TOKENS, Case

TIMEOUT_SECONDS = 30
DATATYPES = {
    "int64": "INT64",
    "int8": "INT8",
    "uint8": "UINT8",
    "float16": "FP16",
    "float32": "FP32",
    "bool": "BOOL",
    "object": "BYTES",
}


def tensors(case: Case, *, twin: str = "fp32", sampling: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Inputs of a case. twin is "fp32", "fp16" or "packed" (float16, main and levels side by side)."""
    made = {
        "input_ids": case.input_ids,
        "sampling_parameters": json.dumps({"max_tokens": MAX_NEW_TOKENS} | (sampling or {})),
    }
    made["return_finish_reason"] = np.array([True])
    if len(case.main):
        made["encoder_fingerprint"] = FINGERPRINT
        if twin == "fp32":
            made["vision_embeddings_fp32"] = case.main
            if len(case.deepstack):
                made["deepstack_embeddings_fp32"] = case.deepstack
        elif twin == "fp16":
            made["vision_embeddings"] = case.main.astype(np.float16)
            made["deepstack_embeddings"] = case.deepstack.astype(np.float16)
        else:
            rows = np.concatenate([case.main[None], case.deepstack]).transpose(1, 0, 2)  # (N, 1+L, H)
            made["vision_embeddings"] = rows.reshape(len(rows), -1).astype(np.float16)
    for name in ("image_grid_thw", "video_grid_thw"):
        if len(grid := getattr(case, name)):
            made[name] = grid
    return made


def inputs(client: types.ModuleType, values: dict[str, Any]) -> list[Any]:
    made = []
    for name, value in values.items():
        array = np.array([value.encode()], dtype=object) if isinstance(value, str) else np.asarray(value, order="C")
        tensor = client.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


@contextmanager
def opened(url: str, values: dict[str, Any], model: str = MODEL, **options: Any) -> Iterator[tuple[Any, queue.Queue]]:
    """A client with one running stream, and the queue of its (result, error) pairs. Cancelled when the block ends."""
    answers: queue.Queue = queue.Queue()
    is_ended = threading.Event()  # cancelling what has ended can keep this Triton from unloading the model

    def receive(result: Any, error: Any) -> None:
        if error is not None or is_final(result):
            is_ended.set()
        answers.put((result, error))

    with grpcclient.InferenceServerClient(url) as client:
        client.start_stream(callback=receive)
        client.async_stream_infer(model, inputs(grpcclient, values), **options)
        try:
            yield client, answers
        finally:
            client.stop_stream(cancel_requests=not is_ended.is_set())


def is_final(result: Any) -> bool:
    return result.get_response().parameters["triton_final_response"].bool_param


def stream(url: str, values: dict[str, Any], model: str = MODEL, **options: Any) -> tuple[tuple[int, ...], str, str]:
    """Tokens, text and finish reason of one streamed answer; raises tritonclient's error."""
    tokens, text, count = [], b"", 0
    with opened(url, values, model, **options) as (_, answers):
        while True:
            result, error = answers.get(timeout=TIMEOUT_SECONDS)
            if error is not None:
                raise error
            count += 1
            tokens += result.as_numpy("token_ids").tolist()
            text += result.as_numpy("text_output")[0]
            if is_final(result):
                return tuple(tokens), text.decode(), result.as_numpy("finish_reason")[0].decode()


def unary(
    url: str, values: dict[str, Any], client: types.ModuleType = grpcclient, model: str = UNARY_MODEL, **options: Any
) -> Any:
    """The one response of the unary model, over gRPC or HTTP with binary tensors."""
    with client.InferenceServerClient(url) as connection:
        return connection.infer(model, inputs(client, values), **options)


__all__ = ["grpcclient", "httpclient", "inputs", "is_final", "opened", "stream", "tensors", "unary"]
