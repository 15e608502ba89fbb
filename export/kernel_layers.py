"""The tower's layers as operators of the domain "edge_vlm": what kernels/ computes in one go is one node.

A layer that is kept in fp16 in an int8 tower falls back to the plain form.
"""

from export.layers import Layers
from export.linear import fp16, fp32, int8, stored_fp16, stored_fp32, stored_int8
from export.operators import DOMAIN

# By how matrices are multiplied: the end of operators' names, how they are stored, and the operator of attention.
KERNELS = {
    fp32: ("32", stored_fp32, "FrameAttention32"),
    fp16: ("16", stored_fp16, "FrameAttention32"),
    int8: ("8", stored_int8, "FrameAttention"),
}


class KernelLayers(Layers):
    """Layers of a tower whose `linear` is one of KERNELS."""

    def block(self, rows: str, number: int, rotary: tuple[str, str], frames: str) -> str:
        """One transformer block. `frames` is the shape (frames, hw, 3 * hidden), int64 (3,)."""
        name, op = f"blocks.{number}", self._graph.op
        bits, _, attention = KERNELS[self._linear]
        qkv, proj, first, second = (f"{name}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"))  # fmt: skip
        if self._is_kept(qkv):
            packed = self.linear(self.norm(rows, f"{name}.norm1"), qkv)
        else:
            inputs = [rows, *self._norm_weights(f"{name}.norm1"), *self._stored(qkv)]
            packed = op(f"NormLinear{bits}", inputs, qkv, domain=DOMAIN)
        attended = self.attention(attention, packed, rotary, frames)
        if self._is_kept(proj):
            rows = op("Add", [rows, self.linear(attended, proj)])
        else:
            rows = op(f"LinearAdd{bits}", [attended, *self._stored(proj), rows], proj, domain=DOMAIN)
        if self._is_kept(first) or self._is_kept(second) or (bits == "8") != (second in self._factors):
            return self._mlp(rows, name)
        inputs = [rows, *self._norm_weights(f"{name}.norm2"), *self._stored(first)]
        if bits == "8":
            inputs.append(self._graph.weight(f"{second}.factors", lambda: self._factors[second]))  # (intermediate,)
        return op(f"NormMlpAdd{bits}", [*inputs, *self._stored(second)], name, domain=DOMAIN)

    def _norm_weights(self, name: str) -> list[str]:
        return [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]

    def _stored(self, name: str) -> list[str]:
        return list(KERNELS[self._linear][1](self._graph, self._source(name)))
