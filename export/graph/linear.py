"""A linear layer in each precision: what the graph stores, and the nodes that multiply with it (operators.py).

Everything between two linear layers (norms, attention, activations) stays float32 in every precision, and so do sums.
Weights come out of the checkpoint as (out, in); Builder.save brings them into the layout that the operator wants.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.graph.builder import Builder
from export.graph.operators import BF16, DOMAIN, FLOAT32, INTEGER_BITS, SIZES
from export.graph.quantise import int4_blocks, int8_columns


@dataclass(frozen=True)
class LinearSource:
    """One linear layer of the checkpoint: readers of weight float32 (num_outputs, num_inputs) and bias float32
    (num_outputs,). A half layer stays in fp16 where the precision is an integer one."""

    name: str
    num_inputs: int
    num_outputs: int
    weight: Callable[[], NDArray[np.float32]]
    bias: Callable[[], NDArray[np.float32]]
    is_half: bool = False


@dataclass(frozen=True)
class Linear:
    """How the graph stores and multiplies matrices.

    Attributes:
        bits: the end of the operators' names: the bits of a weight, or the format of the products.
        stored: adds a layer's weights and bias to a graph; returns their names in the order of operators.STORED.
        attention: the operator of attention beside such layers.
    """

    bits: str
    stored: Callable[[Builder, LinearSource], tuple[str, ...]]
    attention: str = "FrameAttention32"

    @property
    def is_integer(self) -> bool:
        return self.bits in INTEGER_BITS

    def sizes(self, source: LinearSource) -> dict[str, int]:
        """Attributes of every operator over such a layer, K and N, which the shape of four-bit blocks does not tell."""
        return dict(zip(SIZES, (source.num_inputs, source.num_outputs), strict=True)) if self.bits == "4" else {}

    def __call__(self, graph: Builder, rows: str, source: LinearSource) -> str:
        """Add one layer: (patches, in) to (patches, out). A kernel may multiply a half layer of an integer tower in
        bf16, which is still finer than its neighbours."""
        if self.is_integer and source.is_half:
            return FP16(graph, rows, source)
        attributes = self.sizes(source)
        if self.bits == "16":
            attributes["accuracy_level"] = BF16 if source.is_half else FLOAT32
        stored = self.stored(graph, source)
        return graph.op(f"Linear{self.bits}", [rows, *stored], source.name, domain=DOMAIN, **attributes)


def stored_fp32(graph: Builder, source: LinearSource) -> tuple[str, ...]:
    """Weight float32 (out, in) and bias float32 (out,)."""
    weight = graph.weight(f"{source.name}.weight", source.weight)
    return weight, graph.weight(f"{source.name}.bias", source.bias)


def stored_fp16(graph: Builder, source: LinearSource) -> tuple[str, ...]:
    """Weight fp16 (out, in) and bias float32 (out,): half the file. A kernel reads the fp16 numbers where they lie;
    without a kernel onnxruntime makes float32 of them when it loads the graph."""
    half = graph.weight(f"{source.name}.weight", lambda: source.weight().astype(np.float16))
    return half, graph.weight(f"{source.name}.bias", source.bias)


def stored_int8(graph: Builder, source: LinearSource) -> tuple[str, ...]:
    """Weight int8 (in, out), steps float32 (out,), and float32 (2, out): column sums times steps, then the bias."""

    def stored() -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        values, steps = int8_columns(source.weight())  # (in, out), (out,)
        sums = (values.sum(0, dtype=np.float64) * steps).astype(np.float32)
        return values, steps, np.stack([sums, source.bias()])

    names = (f"{source.name}.weight_int8", f"{source.name}.steps", f"{source.name}.sums_and_bias")
    return graph.weights(names, stored)


def stored_int4(graph: Builder, source: LinearSource) -> tuple[str, ...]:
    """Blocks of 32 weights uint8 (out, blocks, 16), steps float32 (out, blocks), zeros uint8 (out, ceil(blocks / 2))
    and bias float32 (out,)."""
    names = tuple(f"{source.name}.{part}" for part in ("weight_int4", "steps", "zeros"))
    packed = graph.weights(names, lambda: int4_blocks(source.weight()))
    return *packed, graph.weight(f"{source.name}.bias", source.bias)


FP32, FP16 = Linear("32", stored_fp32), Linear("16", stored_fp16)
BF16_PRODUCTS = Linear("Bf16", stored_fp16)
INT8, INT4 = Linear("8", stored_int8, "FrameAttention"), Linear("4", stored_int4, "FrameAttention")
