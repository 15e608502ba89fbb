"""The operators of the domain "edge_vlm", each written as a function of standard ones.

A graph carries these functions, so it runs on any onnxruntime; where the session registers the library of kernels/, its
kernels of the same names run instead. There is one file with one meaning, and both ways pass the same gate.
"""

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import TensorProto, helper

from export.graph.builder import CONTRIB, CONTRIB_OPSET, OPSET
from export.graph.quantise import BLOCK

DOMAIN = "edge_vlm"
FLOAT32, BF16, INT8 = 1, 3, 4  # accuracy_level, the format of the products, as MatMulNBits numbers it
NORM_EPSILON = 1e-6  # fixed in transformers' Qwen3VLVision* modules, not in the config; kernels/prologue.h has it too
GELU_TANH = "gelu_pytorch_tanh"  # by transformers' name
QUICK = {"quick_gelu": 1.702, "silu": 1.0}  # x * sigmoid(alpha * x)
FUSED = (GELU_TANH, "gelu", "quick_gelu")  # what kernels apply inside an MLP
UINT8_MAX, SMALLEST_STEP = 255, 1e-12
# The tensors of a stored layer, by the bits of a weight:
# 4: those of quantise.int4_blocks, and float32 (out,); 8: int8 (in, out), float32 (out,), float32 (2, out);
# 16 and Bf16: fp16 (out, in), float32 (out,); 32: float32 (out, in), float32 (out,).
STORED = {
    "4": ("weight", "steps", "zeros", "bias"),
    "8": ("weight", "steps", "sums_and_bias"),
    "16": ("weight", "bias"),
    "Bf16": ("weight", "bias"),
    "32": ("weight", "bias"),
}
INTEGER_BITS = ("4", "8")
SIZES = ("K", "N")  # attributes of 4-bit operators: inputs and outputs of the first layer, named as in MatMulNBits


class Body:
    """The nodes of a function under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, inputs: list[str], name: str | None = None, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def number(self, value: float) -> str:
        """A float32 constant of shape ()."""
        return self.op("Constant", [], value=helper.make_tensor("value", TensorProto.FLOAT, [], [value]))

    def integers(self, *values: int) -> str:
        """An int64 constant of shape (len(values),)."""
        return self.op("Constant", [], value_ints=list(values))

    def inherit(self, name: str, kind: onnx.AttributeProto.AttributeType, given: str = "") -> None:
        """The last node takes an attribute of the function as its own attribute `name`; the function calls it `given`,
        or `name` where `given` is empty."""
        self.nodes[-1].attribute.append(onnx.AttributeProto(name=name, ref_attr_name=given or name, type=kind))

    def norm(self, rows: str, weight: str, bias: str, epsilon: float = NORM_EPSILON) -> str:
        """A norm; where `epsilon` is not NORM_EPSILON, it comes from the function's attribute."""
        if epsilon == NORM_EPSILON:
            return self.op("LayerNormalization", [rows, weight, bias], axis=-1, epsilon=NORM_EPSILON)
        made = self.op("LayerNormalization", [rows, weight, bias], axis=-1)
        self.inherit("epsilon", onnx.AttributeProto.FLOAT)
        return made

    def linear(
        self, rows: str, bits: str, stored: list[str], name: str | None = None, sizes: tuple[str, ...] = SIZES
    ) -> str:
        """One layer: rows (patches, in) to (patches, out).

        Args:
            bits: a key of STORED.
            stored: the layer's tensors in the order of STORED.
            sizes: the function's attributes for K and N, where bits is 4.
        """
        if bits == "4":
            weight, steps, zeros, bias = stored
            return self._linear4(rows, weight, steps, zeros, bias, name, sizes)
        if bits == "8":
            weight, steps, bias = stored
            return self._linear8(rows, weight, steps, bias, name)
        weight, bias = stored
        if bits in ("16", "Bf16"):
            weight = self.op("Cast", [weight], to=TensorProto.FLOAT)
        return self.op("Gemm", [rows, weight, bias], name, transB=1)

    def _linear4(
        self, rows: str, weight: str, steps: str, zeros: str, bias: str, name: str | None, sizes: tuple[str, ...]
    ) -> str:
        """Each block of weights has a step and a zero; MatMulNBits rounds rows to 8 bits, block by block."""
        stored: dict[str, Any] = {"bits": 4, "block_size": BLOCK, "accuracy_level": INT8}
        product = self.op("MatMulNBits", [rows, weight, steps, zeros], domain=CONTRIB, **stored)
        for size, given in zip(SIZES, sizes, strict=True):
            self.inherit(size, onnx.AttributeProto.INT, given)
        return self.op("Add", [product, bias], name)

    def _linear8(self, rows: str, weight: str, steps: str, sums_and_bias: str, name: str | None) -> str:
        """Unsigned 8-bit rows times signed 8-bit columns, each row and each column with a step of its own.

        The graph finds a step and a zero for each row while it runs: x = step * (q - zero). The product with the zeros
        is the same for all q, so it comes back as a matrix of rank 1, and the bias with it: one Gemm over two columns.
        Signed rows would take onnxruntime's slow path.
        """
        op, zero = self.op, self.number(0.0)
        high = op("Max", [op("ReduceMax", [rows, self.integers(-1)], keepdims=0), zero])  # (patches,)
        low = op("Min", [op("ReduceMin", [rows, self.integers(-1)], keepdims=0), zero])
        step = op("Mul", [op("Sub", [high, low]), self.number(1 / UINT8_MAX)])
        step = op("Max", [step, self.number(SMALLEST_STEP)])
        zeros = op("Round", [op("Div", [op("Neg", [low]), step])])  # 0 .. 255
        quantised = op("QuantizeLinear", [rows, step, op("Cast", [zeros], to=TensorProto.UINT8)], axis=0)
        product = op("MatMulIntegerToFloat", [quantised, weight, self.number(1.0), steps], domain=CONTRIB)
        column = op("Unsqueeze", [step, self.integers(1)])  # (patches, 1)
        shift = op("Unsqueeze", [op("Mul", [op("Neg", [step]), zeros]), self.integers(1)])
        ones = op("Div", [column, column])
        thin = op("Concat", [shift, ones], axis=1)  # (patches, 2)
        return op("Gemm", [thin, sums_and_bias, op("Mul", [product, column])], name)

    def function(self, name: str, inputs: list[str], attributes: tuple[str, ...] = ()) -> onnx.FunctionProto:
        """The function of these nodes; its output has the name `result`."""
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, CONTRIB_OPSET)]
        return helper.make_function(DOMAIN, name, inputs, ["result"], self.nodes, opsets, list(attributes))


def _sizes(bits: str) -> tuple[str, ...]:
    return SIZES if bits == "4" else ()


def linear(bits: str) -> onnx.FunctionProto:
    """One layer, (patches, in) to (patches, out). The products of this function are float32. A kernel may multiply in
    bf16 where `bits` is Bf16, or 16 with accuracy_level BF16. The 4-bit kernels make 8-bit columns of the blocks, each
    with a step, and round rows as Linear8 does."""
    body, stored = Body(), [*STORED[bits]]
    body.linear("rows", bits, stored, "result")
    return body.function(f"Linear{bits}", ["rows", *stored], ("accuracy_level",) if bits == "16" else _sizes(bits))


def kind_of_norm(epsilon: float) -> dict[str, Any]:
    """The attributes by which a node of NormLinear says that its norm is not the usual one."""
    return {} if epsilon == NORM_EPSILON else {"epsilon": epsilon}


def kind_of_mlp(epsilon: float, activation: str) -> dict[str, Any]:
    """The attributes by which a node of NormMlpAdd says that its norm or its activation is not the usual one."""
    return kind_of_norm(epsilon) | ({} if activation == GELU_TANH else {"activation": activation})


def named(kind: str, own: dict[str, Any]) -> str:
    """The name of an operator with such attributes: a library of kernels that does not know them lacks the name, and
    the function runs."""
    return f"General{kind}" if own else kind


def norm_linear(bits: str, epsilon: float = NORM_EPSILON) -> onnx.FunctionProto:
    body, stored = Body(), [*STORED[bits]]
    body.linear(body.norm("rows", "norm_weight", "norm_bias", epsilon), bits, stored, "result")
    own = kind_of_norm(epsilon)
    attributes = (*_sizes(bits), *own)
    return body.function(named(f"NormLinear{bits}", own), ["rows", "norm_weight", "norm_bias", *stored], attributes)


def linear_add(bits: str) -> onnx.FunctionProto:
    body, stored = Body(), [*STORED[bits]]
    body.op("Add", ["residual", body.linear("rows", bits, stored)], "result")
    return body.function(f"LinearAdd{bits}", ["rows", *stored, "residual"], _sizes(bits))


def rms_norm() -> onnx.FunctionProto:
    """Rows (patches, width) over their root mean square, times a gain (width,) (https://arxiv.org/abs/1910.07467)."""
    body = Body()
    squares = body.op("Pow", ["rows", body.number(2.0)])
    mean = body.op("ReduceMean", [squares, body.integers(-1)], keepdims=1)
    scale = body.op("Sqrt", [body.op("Add", [mean, body.number(NORM_EPSILON)])])
    body.op("Mul", [body.op("Div", ["rows", scale]), "norm_weight"], "result")
    return body.function("RmsNorm", ["rows", "norm_weight"])


def _activated(body: Body, rows: str, activation: str) -> str:
    if activation == GELU_TANH:
        return body.op("FastGelu", [rows], domain=CONTRIB)
    if activation in QUICK:
        return body.op("QuickGelu", [rows], domain=CONTRIB, alpha=QUICK[activation])
    return body.op("Gelu", [rows], approximate="none")


def norm_mlp_add(bits: str, epsilon: float = NORM_EPSILON, activation: str = GELU_TANH) -> onnx.FunctionProto:
    """The rows plus their MLP, (patches, hidden) to the same. In integer precisions factors (wide,) stand between the
    activation, one of FUSED, and the second layer."""
    first, second = ([f"{name}_{number}" for name in STORED[bits]] for number in (1, 2))
    body, factors = Body(), ["factors"] if bits in INTEGER_BITS else []
    wide = body.linear(body.norm("rows", "norm_weight", "norm_bias", epsilon), bits, first)
    wide = _activated(body, wide, activation)
    if factors:
        wide = body.op("Mul", [wide, *factors])
    body.op("Add", ["rows", body.linear(wide, bits, second, sizes=SIZES[::-1])], "result")
    inputs = ["rows", "norm_weight", "norm_bias", *first, *factors, *second]
    own = kind_of_mlp(epsilon, activation)
    return body.function(named(f"NormMlpAdd{bits}", own), inputs, (*_sizes(bits), *own))


def frame_attention(name: str) -> onnx.FunctionProto:
    """packed (patches, 3 * hidden), shape (frames, hw, 3 * hidden), cosines and sines (hw, head_dim / 2) to (patches,
    hidden). It rotates queries and keys, every frame from position 0 on; no row sees another frame. Without a mask
    onnxruntime takes its flash path, which never holds the scores of a whole frame. The kernels of FrameAttention round
    to integers, those of FrameAttention32 do not."""
    body = Body()
    packed = body.op("Reshape", ["packed", "shape"])
    parts = ["query", "key", "value"]
    body.nodes.append(helper.make_node("Split", [packed], parts, axis=2, num_outputs=3))  # 3 x (frames, hw, hidden)
    start = body.integers(0)
    for part in parts[:2]:
        body.op("RotaryEmbedding", [part, start, "cosines", "sines"], f"rotated_{part}", domain=CONTRIB, interleaved=0)
        body.inherit("num_heads", onnx.AttributeProto.INT)
    attended = body.op("MultiHeadAttention", ["rotated_query", "rotated_key", "value"], domain=CONTRIB)
    body.inherit("num_heads", onnx.AttributeProto.INT)
    body.inherit("scale", onnx.AttributeProto.FLOAT)
    width = body.op("Div", [body.op("Slice", ["shape", body.integers(2), body.integers(3)]), body.integers(3)])
    body.op("Reshape", [attended, body.op("Concat", [body.integers(-1), width], axis=0)], "result")
    return body.function(name, ["packed", "shape", "cosines", "sines"], ("num_heads", "scale"))


FUNCTIONS = {
    function.name: function
    for function in (
        *(made(bits) for bits in STORED for made in (linear, norm_linear, linear_add, norm_mlp_add)),
        *(frame_attention(name) for name in ("FrameAttention", "FrameAttention32")),
        rms_norm(),
    )
}


def functions(
    kinds: Iterable[str], epsilon: float = NORM_EPSILON, activation: str = GELU_TANH
) -> list[onnx.FunctionProto]:
    """What the operators of a graph mean.

    Args:
        kinds: their names.
        epsilon, activation: of the graph's norms and MLPs.
    """
    own = [norm_linear(bits, epsilon) for bits in STORED]
    if activation in FUSED:
        own += [norm_mlp_add(bits, epsilon, activation) for bits in STORED]
    by_name = FUNCTIONS | {function.name: function for function in own}
    return [by_name[kind] for kind in kinds]
