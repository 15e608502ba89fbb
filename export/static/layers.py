"""The layers of a tower in the operators that every accelerator takes: opset 17, one domain, at most four dimensions.

Rows stay (1, patches, width). The forms are those that the compilers recognise: attention is MatMul, Softmax, MatMul, a
linear layer is MatMul and Add, and GELU is its textbook formula. The scale of attention and the split into queries,
keys and values lie in the weights.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from export.graph.builder import Builder
from export.graph.tower import Read, Tower
from export.static.frame import Frame

Tensor = Callable[[], NDArray[np.float32]]
QUICK = {"quick_gelu": 1.702, "silu": 1.0}  # x * sigmoid(alpha * x)
CUBE, TANH = 0.044715, math.sqrt(2 / math.pi)  # the factors in gelu's tanh form (https://arxiv.org/abs/1606.08415)


class StaticLayers:
    """Adds layers to a graph.

    Args:
        read: gives a tower tensor by its tower-local name, float32.
        has_erf: the target computes the error function; without it an exact gelu takes its tanh form.
        is_factored: gelu's tanh form takes the common factor out, as onnxruntime makes one operator of it; accelerators'
            compilers know the other form.
    """

    def __init__(
        self, graph: Builder, tower: Tower, read: Read, *, has_erf: bool = True, is_factored: bool = False
    ) -> None:
        self._graph, self._tower, self.read = graph, tower, read
        self._has_erf, self._is_factored = has_erf, is_factored

    def linear(self, rows: str, name: str, output: str | None = None) -> str:
        """(1, patches, in) to (1, patches, out); returns the rows' name, `output` or else the layer's."""
        return self.product(rows, name, lambda: self.read(f"{name}.weight"), lambda: self.read(f"{name}.bias"), output)

    def product(self, rows: str, name: str, weight: Tensor, bias: Tensor, output: str | None = None) -> str:
        """As `linear`, of a weight (out, in) and a bias (out,)."""
        matrix = self._graph.weight(f"{name}.matrix", lambda: np.ascontiguousarray(weight().T))  # (in, out)
        product = self._graph.op("MatMul", [rows, matrix])
        return self._graph.op("Add", [product, self._graph.weight(f"{name}.bias", bias)], output or name)

    def norm(self, rows: str, name: str) -> str:
        """The tower's normalisation over the last axis."""
        op, graph = self._graph.op, self._graph
        weight = graph.weight(f"{name}.weight", lambda: self.read(f"{name}.weight"))
        if not self._tower.is_rms:
            bias = graph.weight(f"{name}.bias", lambda: self.read(f"{name}.bias"))
            return op("LayerNormalization", [rows, weight, bias], name, axis=-1, epsilon=self._tower.norm_epsilon)
        mean = op("ReduceMean", [op("Mul", [rows, rows])], axes=[-1], keepdims=1)
        root = op("Sqrt", [op("Add", [mean, graph.scalar(self._tower.norm_epsilon)])])
        return op("Mul", [op("Div", [rows, root]), weight], name)

    def activation(self, rows: str, kind: str) -> str:
        """An activation function by transformers' name; the shape stays.

        Raises:
            BundleError: no static graph has it.
        """
        op, number = self._graph.op, self._graph.scalar
        if kind in QUICK:
            scaled = rows if QUICK[kind] == 1 else op("Mul", [rows, number(QUICK[kind])])
            return op("Mul", [rows, op("Sigmoid", [scaled])])
        if kind == "gelu_pytorch_tanh" and self._is_factored:
            square = op("Mul", [op("Mul", [rows, number(CUBE)]), rows])
            inner = op("Mul", [op("Mul", [rows, number(TANH)]), op("Add", [square, number(1.0)])])
            return op("Mul", [op("Mul", [rows, number(0.5)]), op("Add", [op("Tanh", [inner]), number(1.0)])])
        if kind == "gelu_pytorch_tanh" or (kind == "gelu" and not self._has_erf):
            cube = op("Mul", [rows, op("Mul", [rows, rows])])
            inner = op("Add", [rows, op("Mul", [cube, number(CUBE)])])
            gate = op("Tanh", [op("Mul", [inner, number(TANH)])])
        elif kind == "gelu":
            gate = op("Erf", [op("Div", [rows, number(math.sqrt(2))])])
        else:
            raise BundleError(
                f"activation is {kind!r}, static graphs have gelu, gelu_pytorch_tanh, quick_gelu and silu"
            )
        return op("Mul", [op("Mul", [rows, op("Add", [gate, number(1.0)])]), number(0.5)])

    def block(self, rows: str, number: int, frame: Frame, mask: str | None = None) -> str:
        """Transformer block `number`, (1, patches, hidden) to the same.

        Args:
            mask: float32 (1, 1, patches, patches), which the block adds to the scores.
        """
        name, op = f"blocks.{number}", self._graph.op
        attended = self._attention(self.norm(rows, f"{name}.norm1"), f"{name}.attn", frame, mask)
        rows = op("Add", [rows, self.linear(attended, f"{name}.attn.proj")])
        normed, kind = self.norm(rows, f"{name}.norm2"), self._tower.activation
        wide = self.linear(normed, f"{name}.mlp.linear_fc1")  # (1, patches, intermediate)
        if self._tower.is_gated:
            wide = op("Mul", [self.activation(self.linear(normed, f"{name}.mlp.linear_gate"), kind), wide])
        else:
            wide = self.activation(wide, kind)
        return op("Add", [rows, self.linear(wide, f"{name}.mlp.linear_fc2")], name)

    def _attention(self, rows: str, name: str, frame: Frame, mask: str | None) -> str:
        """(1, patches, hidden) to the same, without the projection."""
        op = self._graph.op
        query, key, value = (self._heads(rows, name, part, frame) for part in range(3))
        query, key = self._turned(query, frame), self._turned(key, frame)
        scores = op("MatMul", [query, op("Transpose", [key], perm=[0, 1, 3, 2])])  # (1, heads, patches, patches)
        if mask is not None:
            scores = op("Add", [scores, mask])
        mixed = op("MatMul", [op("Softmax", [scores], axis=-1), value])
        joined = op("Transpose", [mixed], perm=[0, 2, 1, 3])  # (1, patches, heads, head_dim)
        return op("Reshape", [joined, self._graph.ints(1, frame.num_patches, self._tower.hidden_size)])

    def _heads(self, rows: str, name: str, part: int, frame: Frame) -> str:
        """Queries (part 0), keys or values, (1, heads, patches, head_dim); queries carry the scale of attention."""
        hidden, width = self._tower.hidden_size, self._tower.head_dim
        scale = np.float32(width**-0.5 if part == 0 else 1)

        def read(kind: str) -> NDArray[np.float32]:
            return self.read(f"{name}.qkv.{kind}")[part * hidden : (part + 1) * hidden] * scale

        own = f"{name}.{('query', 'key', 'value')[part]}"
        flat = self.product(rows, own, lambda: read("weight"), lambda: read("bias"))
        shape = self._graph.ints(1, frame.num_patches, self._tower.num_heads, width)
        return self._graph.op("Transpose", [self._graph.op("Reshape", [flat, shape])], perm=[0, 2, 1, 3])

    def _turned(self, heads: str, frame: Frame) -> str:
        """(1, heads, patches, head_dim), each pair of a head's halves turned by the angles of its place."""
        graph, op, half = self._graph, self._graph.op, self._tower.head_dim // 2
        first, second = graph.ops(
            "Split", [heads, graph.ints(half, half)], [f"{heads}_first", f"{heads}_second"], axis=3
        )
        turned = [
            op("Sub", [op("Mul", [first, frame.cosines]), op("Mul", [second, frame.sines])]),
            op("Add", [op("Mul", [second, frame.cosines]), op("Mul", [first, frame.sines])]),
        ]
        return op("Concat", turned, axis=3)
