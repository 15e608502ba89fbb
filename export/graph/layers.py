"""The layers that towers share, as ONNX nodes: linear layer, norm, attention, transformer block.

Rows stay (patches, width) throughout, so that a linear layer is one product with the weight as the checkpoint stores
it; only attention sees frames. What kernels/ computes in one go is one node, an operator of export/graph/operators.py;
a layer that stays in fp16 in an integer tower takes the plain form.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from export.graph.builder import CONTRIB, Builder
from export.graph.linear import FP32, Linear, LinearSource
from export.graph.operators import DOMAIN, FUSED, GELU_TANH, QUICK, kind_of_mlp, kind_of_norm, named
from export.graph.tower import Tower

Attend = Callable[[str], str]  # packed queries, keys and values (patches, 3 * hidden) to (patches, hidden)


class Layers:
    """Adds layers to a graph. `read` gives a tower tensor by its tower-local name, float32.

    Args:
        linear: how the graph stores and multiplies matrices.
        factors: by which the graph multiplies the input channels of some linear layers, float32 (in,) by layer name;
            `read` gives those layers' weights already divided by them.
        half: prefixes of the layers that stay in fp16 where `linear` is an integer one.
    """

    def __init__(
        self,
        graph: Builder,
        tower: Tower,
        read: Callable[[str], NDArray[np.float32]],
        linear: Linear = FP32,
        factors: Mapping[str, NDArray[np.float32]] | None = None,
        half: tuple[str, ...] = (),
    ) -> None:
        self._graph, self._tower, self.read = graph, tower, read
        self._linear, self._factors, self._half = linear, factors or {}, half
        self._shapes = tower.shapes
        # Operators of half a block compute these kinds of towers; others run layer by layer.
        self._fuses_attention = not tower.is_rms and not tower.has_qk_norm
        self._fuses_mlp = not tower.is_rms and not tower.is_gated and tower.activation in FUSED

    def weight(self, name: str) -> str:
        return self._graph.weight(name, lambda: self.read(name))

    def linear(self, rows: str, name: str) -> str:
        """(patches, in) to (patches, out). The one place that a lower precision changes."""
        if name in self._factors:
            factors = self._graph.weight(f"{name}.factors", lambda: self._factors[name])  # (in,)
            rows = self._graph.op("Mul", [rows, factors])
        return self._linear(self._graph, rows, self._source(name))

    def _source(self, name: str) -> LinearSource:
        num_outputs, num_inputs = self._shapes[f"{name}.weight"]
        return LinearSource(
            name,
            num_inputs,
            num_outputs,
            lambda: self.read(f"{name}.weight"),
            lambda: self.read(f"{name}.bias"),
            self._is_half(name),
        )

    def _is_half(self, name: str) -> bool:
        return name.startswith(self._half)

    def norm(self, rows: str, name: str, epsilon: float | None = None) -> str:
        """The tower's normalisation over (patches, width); with `epsilon` a layer normalisation in every tower."""
        if self._tower.is_rms and epsilon is None:
            return self._rms_norm(rows, name)
        inputs = [rows, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        value = self._tower.norm_epsilon if epsilon is None else epsilon
        return self._graph.op("LayerNormalization", inputs, name, axis=-1, epsilon=value)

    def _rms_norm(self, rows: str, name: str) -> str:
        return self._graph.op("RmsNorm", [rows, self.weight(f"{name}.weight")], name, domain=DOMAIN)

    def _with_normed_heads(self, packed: str, name: str) -> str:
        """(patches, 3 * hidden) with normed queries and keys."""
        op = self._graph.op
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        self._graph.ops("Split", [packed], parts, axis=1, num_outputs=3)
        normed = [self._rms_norm(parts[n], f"{name}.{norm}") for n, norm in enumerate(("q_norm", "k_norm"))]
        return op("Concat", [*normed, parts[2]], axis=1)

    def activation(self, rows: str, kind: str) -> str:
        """An activation function by transformers' name; the shape stays.

        Raises:
            BundleError: the graph has no operator for it.
        """
        op = self._graph.op
        if kind == GELU_TANH:
            return op("FastGelu", [rows], domain=CONTRIB)
        if kind in QUICK:
            return op("QuickGelu", [rows], domain=CONTRIB, alpha=QUICK[kind])
        if kind == "gelu":
            return op("Gelu", [rows], approximate="none")
        raise BundleError(
            f"activation {kind!r} was asked for, the graph has gelu, gelu_pytorch_tanh, quick_gelu and silu"
        )

    def block(self, rows: str, number: int, attend: Attend) -> str:
        """Transformer block `number`, (patches, hidden) to the same; `attend` computes its attention."""
        name, op = f"blocks.{number}", self._graph.op
        bits, has_factors = self._linear.bits, self._linear.is_integer
        qkv, proj, first, second = (f"{name}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"))  # fmt: skip
        if not self._fuses_attention or self._is_half(qkv):
            packed = self.linear(self.norm(rows, f"{name}.norm1"), qkv)
        else:
            inputs = [rows, *self._norm_weights(f"{name}.norm1"), *self._stored(qkv)]
            kind = kind_of_norm(self._tower.norm_epsilon)
            packed = op(named(f"NormLinear{bits}", kind), inputs, qkv, domain=DOMAIN, **self._sizes(qkv), **kind)
        if self._tower.has_qk_norm:
            packed = self._with_normed_heads(packed, f"{name}.attn")
        attended = attend(packed)
        if self._is_half(proj):
            rows = op("Add", [rows, self.linear(attended, proj)])
        else:
            inputs = [attended, *self._stored(proj), rows]
            rows = op(f"LinearAdd{bits}", inputs, proj, domain=DOMAIN, **self._sizes(proj))
        lacks_factors = not has_factors and second in self._factors
        if not self._fuses_mlp or self._is_half(first) or self._is_half(second) or lacks_factors:
            return self._mlp(rows, name)
        inputs = [rows, *self._norm_weights(f"{name}.norm2"), *self._stored(first)]
        if has_factors:
            inputs.append(self._graph.weight(f"{second}.factors", lambda: self._factors_of(second)))
        sizes, kind = self._sizes(first), kind_of_mlp(self._tower.norm_epsilon, self._tower.activation)
        return op(
            named(f"NormMlpAdd{bits}", kind), [*inputs, *self._stored(second)], name, domain=DOMAIN, **sizes, **kind
        )

    def _factors_of(self, name: str) -> NDArray[np.float32]:
        """A layer's factors, (in,); ones in a tower that is not balanced."""
        return self._factors.get(name, np.ones(self._shapes[f"{name}.weight"][1], np.float32))

    def whole_frames(self, rotary: tuple[str, str], frames: str) -> Attend:
        """Attention in which a row sees its whole frame.

        Args:
            rotary: cosines and sines, float32 (hw, head_dim / 2).
            frames: the shape (frames, hw, 3 * hidden), int64 (3,).
        """
        return lambda packed: self.attention(self._linear.attention, packed, rotary, frames)

    def attention(self, kind: str, packed: str, rotary: tuple[str, str], frames: str) -> str:
        """(patches, 3 * hidden) to (patches, hidden), every frame for itself.

        Args:
            kind: an operator of export/graph/operators.py.
            rotary, frames: as in whole_frames.
        """
        heads, scale = self._tower.num_heads, float(self._tower.head_dim**-0.5)
        return self._graph.op(kind, [packed, frames, *rotary], domain=DOMAIN, num_heads=heads, scale=scale)

    def _mlp(self, rows: str, name: str) -> str:
        """The second half of block `name`, (patches, hidden) to the same."""
        op = self._graph.op
        normed, kind = self.norm(rows, f"{name}.norm2"), self._tower.activation
        wide = self.linear(normed, f"{name}.mlp.linear_fc1")  # (patches, intermediate)
        if self._tower.is_gated:
            wide = op("Mul", [self.activation(self.linear(normed, f"{name}.mlp.linear_gate"), kind), wide])
        else:
            wide = self.activation(wide, kind)
        return op("Add", [rows, self.linear(wide, f"{name}.mlp.linear_fc2")], name)

    def _norm_weights(self, name: str) -> list[str]:
        return [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]

    def _sizes(self, name: str) -> dict[str, int]:
        return self._linear.sizes(self._source(name))

    def _stored(self, name: str) -> list[str]:
        return list(self._linear.stored(self._graph, self._source(name)))
