"""The precisions: how the graph stores and multiplies layers in each, what its gate demands, what it costs.

This is the one place that describes a precision of a bundle; contract.manifest only has the names.
"""

from dataclasses import dataclass

from contract.errors import BundleError
from contract.manifest import PRECISIONS
from export.gate.bounds import Gate
from export.graph.linear import BF16_PRODUCTS, FP16, FP32, INT4, INT8, Linear
from export.graph.quantise import BLOCK


@dataclass(frozen=True)
class Precision:
    """One precision of a bundle.

    Attributes:
        linear: how the graph stores and multiplies matrices.
        gate: how close the written graph must stay to the original.
        weight_bytes: the bytes that a weight of a linear layer takes in the file, with its share of steps and zeros.
        session_towers: memory while onnxruntime loads the graph, in float32 towers. onnxruntime packs a float32 copy
            while the gate gives the pages of the file back; for fp16 it makes a float32 copy first.
        proves_kernels: the gate runs the kernels where this machine multiplies in bf16: standard operators multiply
            such layers in float32, so their answers would say nothing about bf16.
    """

    name: str
    linear: Linear
    gate: Gate
    weight_bytes: float
    session_towers: float
    proves_kernels: bool = False

    @property
    def is_integer(self) -> bool:
        return self.linear.is_integer


# The gate of int4 is a floor: it tells rounding from a wrong graph (0.84 at best) and says nothing about answers. It
# bounds the worst row loosely, because single tokens amplify errors.
BY_NAME = {
    precision.name: precision
    for precision in (
        Precision("fp32", FP32, Gate(0.999999, 0.999999, 1e-4), 4.0, 1.4),
        Precision("fp16", FP16, Gate(0.9999, 0.9999), 2.0, 2.5),
        Precision("bf16", BF16_PRODUCTS, Gate(0.999, 0.9999), 2.0, 2.5, proves_kernels=True),
        Precision("int8", INT8, Gate(0.995, 0.999), 1.0, 1.3),
        Precision("int4", INT4, Gate(0.85, 0.95), 0.5 + 4.5 / BLOCK, 1.3),
    )
}


def precision_named(name: str) -> Precision:
    """The precision of this name.

    Raises:
        BundleError: no precision has this name.
    """
    if name not in BY_NAME:
        raise BundleError(f"precision is {name!r}, {', '.join(PRECISIONS)} can be exported")
    return BY_NAME[name]
