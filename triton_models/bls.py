"""Asking qwen3_vl from inside the server, as both models in front of it do."""

import triton_python_backend_utils as pb_utils

from contract.errors import from_wire
from contract.names import MODEL
from contract.tensors import OUTPUTS


def call(inputs, request_id, parameters=None, timeout_us=0):
    """The responses of qwen3_vl, which have to be read to the end: an iterator left early never unloads."""
    return pb_utils.InferenceRequest(
        model_name=MODEL,
        request_id=request_id,
        inputs=inputs,
        requested_output_names=[spec.name for spec in OUTPUTS],
        parameters=parameters or {},
        timeout=timeout_us,
    ).exec(decoupled=True)


def answer(inputs, request_id, parameters=None, timeout_us=0):
    """The output tensors of a request with stream = false.

    Raises:
        EdgeVlmError: what qwen3_vl refused or failed with; of an error only the text survives BLS.
    """
    answers = list(call(inputs, request_id, parameters, timeout_us))
    for one in answers:
        if one.has_error():
            raise from_wire(one.error().message())
    return [tensor for one in answers for tensor in one.output_tensors()]
