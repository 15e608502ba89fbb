"""A linear layer in each precision: what is stored, and the nodes that multiply with it (export/operators.py).

Everything between two linear layers (norms, attention, activations) stays float32 in every precision, and so do sums.
Weights come out of the checkpoint as (out, in); what onnxruntime's kernel wants is made when the graph is written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.builder import Builder
from export.operators import BF16, DOMAIN, FLOAT32, SIZES
from export.quantise import int4_blocks, int8_columns


@dataclass(frozen=True)
class Source:
    """One linear layer of the checkpoint: readers of weight (num_outputs, num_inputs) and bias, float32. A kept one
    stays in fp16 where the precision is an integer."""

    name: str
    num_inputs: int
    num_outputs: int
    weight: Callable[[], NDArray[np.float32]]
    bias: Callable[[], NDArray[np.float32]]
    is_kept: bool = False


class Linear(Protocol):
    """Adds one linear layer to a graph: (patches, in) to (patches, out)."""

    def __call__(self, graph: Builder, rows: str, source: Source) -> str: ...


def fp32(graph: Builder, rows: str, source: Source) -> str:
    """One Gemm over the weight as the checkpoint stores it."""
    return graph.op("Linear32", [rows, *stored_fp32(graph, source)], source.name, domain=DOMAIN)


def stored_fp32(graph: Builder, source: Source) -> tuple[str, ...]:
    """Names of weight float32 (out, in) and bias (out,)."""
    weight = graph.weight(f"{source.name}.weight", source.weight)
    return weight, graph.weight(f"{source.name}.bias", source.bias)


def fp16(graph: Builder, rows: str, source: Source) -> str:
    """Half the file. A kernel reads the halves where they lie, and without one onnxruntime makes float32 of them when it
    loads the graph. A layer kept in an integer tower may be multiplied in bf16, still finer than its neighbours."""
    level = BF16 if source.is_kept else FLOAT32
    return graph.op("Linear16", [rows, *stored_fp16(graph, source)], source.name, domain=DOMAIN, accuracy_level=level)


def stored_fp16(graph: Builder, source: Source) -> tuple[str, ...]:
    """Names of weight fp16 (out, in) and bias (out,)."""
    half = graph.weight(f"{source.name}.weight", lambda: source.weight().astype(np.float16))
    return half, graph.weight(f"{source.name}.bias", source.bias)


def int8(graph: Builder, rows: str, source: Source) -> str:
    """Unsigned 8-bit rows times signed 8-bit columns."""
    if source.is_kept:
        return fp16(graph, rows, source)
    return graph.op("Linear8", [rows, *stored_int8(graph, source)], source.name, domain=DOMAIN)


def stored_int8(graph: Builder, source: Source) -> tuple[str, ...]:
    """Names of weight int8 (in, out), steps (out,), and column sums times steps over bias (2, out)."""

    def stored() -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        values, steps = int8_columns(source.weight())  # (in, out), (out,)
        sums = (values.sum(0, dtype=np.float64) * steps).astype(np.float32)
        return values, steps, np.stack([sums, source.bias()])

    names = (f"{source.name}.weight_int8", f"{source.name}.steps", f"{source.name}.sums_and_bias")
    return graph.weights(names, stored)


def int4(graph: Builder, rows: str, source: Source) -> str:
    """Blocks of 32 weights with a step and a zero each; rows are rounded to 8 bits."""
    if source.is_kept:
        return fp16(graph, rows, source)
    stored, sizes = stored_int4(graph, source), sizes_of(source)
    return graph.op("Linear4", [rows, *stored], source.name, domain=DOMAIN, **sizes)


def stored_int4(graph: Builder, source: Source) -> tuple[str, ...]:
    """Names of weight uint8 (out, blocks, 16), steps (out, blocks), zeros uint8 (out, ceil(blocks / 2)) and bias (out,)."""
    names = tuple(f"{source.name}.{part}" for part in ("weight_int4", "steps", "zeros"))
    packed = graph.weights(names, lambda: int4_blocks(source.weight()))
    return *packed, graph.weight(f"{source.name}.bias", source.bias)


def sizes_of(source: Source) -> dict[str, int]:
    """Attributes of an operator of 4 bits, whose stored blocks do not tell them."""
    return dict(zip(SIZES, (source.num_inputs, source.num_outputs), strict=True))


LINEARS: dict[str, Linear] = {"fp32": fp32, "fp16": fp16, "int8": int8, "int4": int4}
