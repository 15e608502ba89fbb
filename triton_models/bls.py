"""Asks another model from inside the server, through Triton's business logic scripting (BLS)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from contract.errors import from_wire
from contract.names import MODEL, VISION_MODEL
from contract.tensors import OUTPUTS


def call(
    inputs: Sequence[Any], request_id: str, parameters: Mapping[str, Any] | None = None, timeout_us: int = 0
) -> Iterable[Any]:
    """The responses of the streaming model. Read them to the end, or that model never unloads."""
    responses: Iterable[Any] = pb_utils.InferenceRequest(
        model_name=MODEL,
        request_id=request_id,
        inputs=inputs,
        requested_output_names=[spec.name for spec in OUTPUTS],
        parameters=parameters or {},
        timeout=timeout_us,
    ).exec(decoupled=True)
    return responses


def encode(
    inputs: Sequence[Any],
    request_id: str,
    output_names: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    timeout_us: int = 0,
) -> list[Any]:
    """The output tensors of the vision model.

    Raises:
        EdgeVlmError: the vision model refused or failed. BLS passes on the text of an error alone, which names the
            type.
    """
    response = pb_utils.InferenceRequest(
        model_name=VISION_MODEL,
        request_id=request_id,
        inputs=inputs,
        requested_output_names=output_names,
        parameters=parameters or {},
        timeout=timeout_us,
    ).exec()
    return [*checked(response).output_tensors()]


def answer(
    inputs: Sequence[Any], request_id: str, parameters: Mapping[str, Any] | None = None, timeout_us: int = 0
) -> list[Any]:
    """The output tensors of a request with stream = false.

    Raises:
        EdgeVlmError: the streaming model refused or failed; see `encode`.
    """
    answers = [checked(one) for one in list(call(inputs, request_id, parameters, timeout_us))]
    return [tensor for one in answers for tensor in one.output_tensors()]


def checked(response: Any) -> Any:
    """The response itself, where it is no error.

    Raises:
        EdgeVlmError: the response is this error.
    """
    if response.has_error():
        raise from_wire(response.error().message())
    return response
