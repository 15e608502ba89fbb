"""Writes config.pbtxt of each model from contract.tensors, the one source of what a model takes and gives."""

from collections.abc import Iterable

from contract.names import MODEL, UNARY_MODEL, VISION_MODEL
from contract.tensors import INPUTS, OUTPUTS, VISION_INPUTS, VISION_OUTPUTS, TensorSpec

TENSORS = {
    MODEL: (INPUTS, OUTPUTS),
    UNARY_MODEL: (INPUTS, OUTPUTS),
    VISION_MODEL: (VISION_INPUTS, VISION_OUTPUTS),
}
# One instance: cancel and vision_keys have to reach the one that knows the request. Two servers may share a machine.
INSTANCES = 1


def config_text(model: str, name: str) -> str:
    """The configuration of a model that is served under a name, without its parameters.

    Only MODEL answers more than once, so only it is decoupled. It runs an engine only under its own name.
    """
    inputs, outputs = TENSORS[model]
    is_decoupled = str(model == MODEL).lower()
    kind = "KIND_MODEL" if name == MODEL else "KIND_CPU"
    return f"""name: "{name}"
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: {is_decoupled} }}
input [
{_entries(inputs, " optional: true")}
]
output [
{_entries(outputs, "")}
]
instance_group [ {{ kind: {kind} count: {INSTANCES} }} ]
"""


def _entries(specs: Iterable[TensorSpec], more: str) -> str:
    lines = []
    for spec in specs:
        datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype  # Triton's configuration has its own word
        dims = ", ".join(map(str, spec.shape))
        lines.append(f'  {{ name: "{spec.name}" data_type: TYPE_{datatype} dims: [ {dims} ]{more} }}')
    return ",\n".join(lines)
