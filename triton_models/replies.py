"""What the models send through Triton's helper module: outputs, typed failures, and nothing of a bug's inside.

The code of an error stands in its text as well, because on streams and through BLS only the text survives.
"""

import json
import traceback
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from contract.errors import EdgeVlmError, ServerError

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def outputs(tensors: Mapping[str, Any]) -> Any:
    """A response of the named arrays."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in tensors.items()])


def failure(error: EdgeVlmError) -> Any:
    """A response that is an EdgeVlmError; Triton takes it as a request's only one."""
    code = getattr(pb_utils.TritonError, error.code, pb_utils.TritonError.UNAVAILABLE)  # no DEADLINE_EXCEEDED there
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.wire(), code))


def unexpected() -> ServerError:
    """The error for the client in place of the current exception, whose traceback goes to the log."""
    pb_utils.Logger.log_error(traceback.format_exc())
    return ServerError("the server failed on this request, its log says why")


def refuse_copies(args: Mapping[str, str]) -> None:
    """Refuse several instances: one alone would know a request's cancel, its keys' tensors and the limits."""
    groups = json.loads(args["model_config"])["instance_group"]
    count = sum(group["count"] * max(1, len(group.get("gpus", []))) for group in groups)
    if count != 1:
        raise pb_utils.TritonModelException(
            f"instance_group asks for {count} instances, 1 is allowed: one engine runs many requests at once, and cancel "
            "and vision_keys have to reach the instance that knows them; start another server on other ports instead"
        )
