"""An old name of a model: it passes requests on to the model under its new name, and the responses back.

The unary model's old name does not need it, for that model asks the streaming one under any name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.names import MODEL, OLD_NAMES
from contract.tensors import INPUTS, VISION_INPUTS
from serving.requests.answer import CANCELLED, ERROR
from triton_models.bls import call, checked, encode
from triton_models.forwarder import Forwarded, Forwarder


def stream(job: Forwarded) -> Any:
    """Send what the streaming model sends, each response at once; returns the last one.

    A BLS caller learns after a response that it was the last. So this always asks for finish_reason, and leaves it out
    again where the client did not ask for it.
    """
    asked = job.inputs.get("return_finish_reason")
    wants_reason = asked is not None and bool(asked.as_numpy().any())
    inputs = [tensor for name, tensor in job.inputs.items() if name != "return_finish_reason"]
    inputs.append(pb_utils.Tensor("return_finish_reason", np.array([True])))  # (1,)
    last = None
    for response in call(inputs, job.inner_id, job.parameters, job.timeout_us):  # never left early
        tensors = checked(response).output_tensors()
        reason = next(t.as_numpy()[0].decode() for t in tensors if t.name() == "finish_reason")
        if not wants_reason and reason not in (CANCELLED, ERROR):
            tensors = [tensor for tensor in tensors if tensor.name() != "finish_reason"]
        last = pb_utils.InferenceResponse(tensors)
        if not reason:
            job.send(last, is_last=False)
    return last


def see(job: Forwarded) -> Any:
    """The one response of the vision model."""
    names = list(job.output_names)
    return pb_utils.InferenceResponse(
        encode(list(job.inputs.values()), job.inner_id, names, job.parameters, job.timeout_us)
    )


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        is_text = OLD_NAMES[args["model_name"]] == MODEL
        self.forwarder = Forwarder(args, INPUTS if is_text else VISION_INPUTS, stream if is_text else see)

    def execute(self, requests: Sequence[Any]) -> None:
        self.forwarder.execute(requests)

    def finalize(self) -> None:
        self.forwarder.close()
