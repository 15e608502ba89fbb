"""The same request with one response, for HTTP infer and unary gRPC, which Triton refuses on a decoupled model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.errors import InvalidInput
from contract.tensors import INPUTS
from triton_models.bls import answer
from triton_models.forwarder import Forwarded, Forwarder


def ask(job: Forwarded) -> Any:
    """The one response of the streaming model."""
    inputs = [tensor for name, tensor in job.inputs.items() if name != "stream"]
    if not inputs:
        raise InvalidInput("neither of input_ids and text_input given: send exactly one of them", check="prompt")
    inputs.append(pb_utils.Tensor("stream", np.array([False])))  # (1,)
    return pb_utils.InferenceResponse(answer(inputs, job.inner_id, job.parameters, job.timeout_us))


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        self.forwarder = Forwarder(args, INPUTS, ask)

    def execute(self, requests: Sequence[Any]) -> None:
        self.forwarder.execute(requests)

    def finalize(self) -> None:
        self.forwarder.close()
