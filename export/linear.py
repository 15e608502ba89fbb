"""A linear layer in each precision: what is stored, and the nodes that multiply with it.

Everything between two linear layers (norms, attention, activations) stays float32 in every precision, and so do sums.
Weights come out of the checkpoint as (out, in); what onnxruntime's kernel wants is made when the graph is written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.builder import CONTRIB, Builder
from export.quantise import BLOCK, int4_blocks, int8_columns

# Left in fp16 by the integer precisions, 5 % of a tower: what all blocks build on, and the last layer of the main output.
# A trained tower has a few tokens that amplify errors; with these the worst of them went from 0.989 to 0.998.
SENSITIVE = ("patch_embed.", "blocks.0.", "merger.linear_fc2")
UINT8_MAX, SMALLEST_STEP = 255, 1e-12


@dataclass(frozen=True)
class Source:
    """One linear layer of the checkpoint: readers of weight (num_outputs, num_inputs) and bias, float32."""

    name: str
    num_inputs: int
    num_outputs: int
    weight: Callable[[], NDArray[np.float32]]
    bias: Callable[[], NDArray[np.float32]]


class Linear(Protocol):
    """Adds one linear layer to a graph: (patches, in) to (patches, out)."""

    def __call__(self, graph: Builder, rows: str, source: Source) -> str: ...


def fp32(graph: Builder, rows: str, source: Source) -> str:
    """One Gemm over the weight as the checkpoint stores it."""
    weight = graph.weight(f"{source.name}.weight", source.weight)
    return graph.op("Gemm", [rows, weight, graph.weight(f"{source.name}.bias", source.bias)], source.name, transB=1)


def fp16(graph: Builder, rows: str, source: Source) -> str:
    """Half the file, the speed of float32: onnxruntime folds the cast when it loads the graph."""
    half = graph.weight(f"{source.name}.weight", lambda: source.weight().astype(np.float16))
    weight = graph.before("Cast", [half], f"{source.name}.weight_fp32", to=TensorProto.FLOAT)
    return graph.op("Gemm", [rows, weight, graph.weight(f"{source.name}.bias", source.bias)], source.name, transB=1)


def int8(graph: Builder, rows: str, source: Source) -> str:
    """Unsigned 8-bit rows times signed 8-bit columns, each row and each column with a step of its own.

    A row is (step, zero), x = step * (q - zero), found while the graph runs. The product with the zeros is the same
    for all q, so it comes back as a matrix of rank 1, and the bias with it: one Gemm over two columns. Signed rows
    would take onnxruntime's slow path.
    """
    if source.name.startswith(SENSITIVE):
        return fp16(graph, rows, source)
    op, zero = graph.op, graph.scalar(0.0)

    def stored() -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        values, steps = int8_columns(source.weight())  # (in, out), (out,)
        sums = (values.sum(0, dtype=np.float64) * steps).astype(np.float32)
        return values, steps, np.stack([sums, source.bias()])

    names = (f"{source.name}.weight_int8", f"{source.name}.steps", f"{source.name}.sums_and_bias")
    weight, steps, sums_and_bias = graph.weights(names, stored)
    high = op("Max", [op("ReduceMax", [rows, graph.ints(-1)], keepdims=0), zero])  # (patches,)
    low = op("Min", [op("ReduceMin", [rows, graph.ints(-1)], keepdims=0), zero])
    step = op("Mul", [op("Sub", [high, low]), graph.scalar(1 / UINT8_MAX)])
    step = op("Max", [step, graph.scalar(SMALLEST_STEP)])
    zeros = op("Round", [op("Div", [op("Neg", [low]), step])])  # 0 .. 255
    quantised = op("QuantizeLinear", [rows, step, op("Cast", [zeros], to=TensorProto.UINT8)], axis=0)
    product = op("MatMulIntegerToFloat", [quantised, weight, graph.scalar(1.0), steps], domain=CONTRIB)
    column = op("Unsqueeze", [step, graph.ints(1)])  # (patches, 1)
    shift = op("Unsqueeze", [op("Mul", [op("Neg", [step]), zeros]), graph.ints(1)])
    ones = op("Div", [column, column])
    thin = op("Concat", [shift, ones], axis=1)  # (patches, 2)
    return op("Gemm", [thin, sums_and_bias, op("Mul", [product, column])], source.name)


def int4(graph: Builder, rows: str, source: Source) -> str:
    """Blocks of 32 weights with a step and a zero each; rows are quantised to 8 bits inside onnxruntime's kernel."""
    if source.name.startswith(SENSITIVE):
        return fp16(graph, rows, source)
    names = tuple(f"{source.name}.{part}" for part in ("weight_int4", "steps", "zeros"))
    packed = graph.weights(names, lambda: int4_blocks(source.weight()))
    width = {"K": source.num_inputs, "N": source.num_outputs}
    product = graph.op(
        "MatMulNBits", [rows, *packed], domain=CONTRIB, **width, bits=4, block_size=BLOCK, accuracy_level=4
    )
    return graph.op("Add", [product, graph.weight(f"{source.name}.bias", source.bias)], source.name)


LINEARS: dict[str, Linear] = {"fp32": fp32, "fp16": fp16, "int8": int8, "int4": int4}
