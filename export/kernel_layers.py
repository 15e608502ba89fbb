"""The tower's layers as operators of the domain "edge_vlm": what kernels/ computes in one go is one node.

For int8, where whole blocks have kernels of their own. A layer that is kept in fp16 falls back to the plain form.
"""

from export.layers import Layers
from export.linear import stored_int8
from export.operators import DOMAIN


class KernelLayers(Layers):
    """Layers of an int8 tower."""

    def block(self, rows: str, number: int, rotary: tuple[str, str], frames: str) -> str:
        """One transformer block. `frames` is the shape (frames, hw, 3 * hidden), int64 (3,)."""
        name, op = f"blocks.{number}", self._graph.op
        qkv, proj, first, second = (f"{name}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"))  # fmt: skip
        if self._is_kept(qkv):
            packed = self.linear(self.norm(rows, f"{name}.norm1"), qkv)
        else:
            inputs = [rows, *self._norm_weights(f"{name}.norm1"), *self._stored(qkv)]
            packed = op("NormLinear8", inputs, qkv, domain=DOMAIN)
        heads, scale = self._tower.num_heads, float(self._tower.head_dim**-0.5)
        attended = op("FrameAttention", [packed, frames, *rotary], domain=DOMAIN, num_heads=heads, scale=scale)
        if self._is_kept(proj):
            rows = op("Add", [rows, self.linear(attended, proj)])
        else:
            rows = op("LinearAdd8", [attended, *self._stored(proj), rows], proj, domain=DOMAIN)
        if self._is_kept(first) or self._is_kept(second) or second not in self._factors:
            return self._mlp(rows, name)
        factors = self._graph.weight(f"{second}.factors", lambda: self._factors[second])  # (intermediate,)
        inputs = [rows, *self._norm_weights(f"{name}.norm2"), *self._stored(first), factors, *self._stored(second)]
        return op("NormMlpAdd8", inputs, name, domain=DOMAIN)

    def _norm_weights(self, name: str) -> list[str]:
        return [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]

    def _stored(self, name: str) -> list[str]:
        return list(stored_int8(self._graph, self._source(name)))
