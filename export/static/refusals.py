"""What an accelerator's compiler would refuse in a graph, by name, before it runs: some compilers only say that they
failed, and one ends its process without a word.
"""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from contract.errors import BundleError
from export.static.target import OWN, Target

MAX_RANK, MAX_IR_VERSION = 4, 9
SHOWN = 5  # refusals that a message names


def refusals(model: onnx.ModelProto, target: Target) -> Iterator[str]:
    """Each thing that the target's compiler refuses. The model's large tensors need not be loaded."""
    opset = next((one.version for one in model.opset_import if not one.domain), 0)
    if opset > target.max_opset:
        yield f"opset {opset}: it takes {target.max_opset} at most"
    if model.ir_version > MAX_IR_VERSION:
        yield f"IR version {model.ir_version}: it takes {MAX_IR_VERSION} at most"
    for function in model.functions:
        yield f"function {function.domain}.{function.name}: {OWN}"
    for node in model.graph.node:
        if node.domain:
            yield f"node {node.name!r}: {node.domain}.{node.op_type}: {OWN}"
        elif node.op_type not in target.operators:
            reason = target.reasons.get(
                node.op_type, "it is not among the operators that the compiler is known to take"
            )
            yield f"node {node.name!r}: {node.op_type}: {reason}"
    yield from _of_values(model)


def _of_values(model: onnx.ModelProto) -> Iterator[str]:
    """Values of unknown size, of more than MAX_RANK dimensions, or of another type than float32."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError as error:
        yield f"its shapes: {error}"
        return
    known = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    for name in [value.name for value in graph.input] + [name for node in graph.node for name in node.output]:
        if name not in known:
            yield f"value {name!r}: nobody knows its shape"
            continue
        sides = known[name].shape.dim
        if not all(side.HasField("dim_value") for side in sides):
            shape = [side.dim_value if side.HasField("dim_value") else side.dim_param or "?" for side in sides]
            yield f"value {name!r}: its shape is {shape}, every side must be a number"
        elif len(sides) > MAX_RANK:
            yield f"value {name!r}: it has {len(sides)} dimensions, {MAX_RANK} are allowed"
        if known[name].elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(known[name].elem_type)
            yield f"value {name!r}: its type is {kind}, FLOAT is expected"


def require_accepted(model: onnx.ModelProto, target: Target) -> None:
    """Check that the target's compiler takes the graph.

    Raises:
        BundleError: it would refuse something; the message names it.
    """
    found = list(refusals(model, target))
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BundleError(f"{target.name} refuses this tower's graph: {'; '.join(found[:SHOWN])}{more}")
