"""The tower in another basis: new weights give the same outputs, and no channel stands out.

Real towers have channels a hundred times louder than the rest, and one scale for a row of 8-bit numbers then leaves
nothing for the quiet ones. An orthogonal matrix mixes the channels of the residual stream, another matrix those of each
head's values. The weights take both in, so the graph stays the same and the mixing costs nothing. First each norm's
gain and bias move into the linear layer behind it. A LayerNorm subtracts the mean, so the residual's matrix must leave
the all-ones direction where it is. The idea for models with RMSNorm: https://arxiv.org/abs/2404.00456 (QuaRot).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from export.graph.tower import Tower
from export.integers.mixing import Matrix, Mixing

NORMS = ("norm", "norm1", "norm2", "post_norm")  # a linear layer stands behind each
NORMS_OF_HEADS = ("q_norm", "k_norm")  # queries and keys keep their basis
Read = Callable[[str], NDArray[np.float32]]


class Rotation:
    """Reads the tensors of a tower in the new basis; names and shapes stay."""

    @staticmethod
    def fits(tower: Tower) -> bool:
        """Whether a tower can be rotated: the gain of CLIP's norm before the first block has no linear layer behind it
        that could take it in."""
        return "pre_norm.weight" not in tower.shapes

    def __init__(self, tower: Tower, read: Read) -> None:
        self._tower, self._read = tower, read
        self._stream, self._head = Mixing(tower.hidden_size), Mixing(tower.head_dim)

    def __call__(self, name: str) -> NDArray[np.float32]:
        """One tensor by its tower-local name, float32; it computes in float64."""
        owner, _, kind = name.rpartition(".")
        *_, last = owner.split(".")
        if last in NORMS:
            return np.full_like(self._read(name), kind == "weight")
        if owner == "pos_embed" or name == "class_embed":
            return self._right(self._wide(name)).astype(np.float32)
        if last in NORMS_OF_HEADS:
            return self._read(name)
        if last in ("qkv", "linear_fc1", "linear_gate"):
            values = self._weight_behind_norm(owner) if kind == "weight" else self._bias_behind_norm(owner)
            if last == "qkv":
                values[2 * self._tower.hidden_size :] = self._heads(values[2 * self._tower.hidden_size :])
            return values.astype(np.float32)
        if owner.startswith("blocks.") or owner == "patch_embed.proj":  # writes to the residual stream
            values = self._wide(name)
            if last == "proj" and kind == "weight" and owner != "patch_embed.proj":
                values = self._heads(values.T).T
            shape = values.shape
            return self._stream(values.reshape(len(values), -1)).reshape(shape).astype(np.float32)
        return self._read(name)  # a merger's last layer: the outputs keep their basis

    def _wide(self, name: str) -> Matrix:
        return self._read(name).astype(np.float64)

    def _norm_of(self, owner: str) -> str | None:
        """The norm in front of a linear layer; None where the layer reads the stream itself."""
        if owner.endswith("attn.qkv"):
            return owner.replace("attn.qkv", "norm1")
        if owner.startswith("blocks."):
            return f"{owner.partition('.mlp.')[0]}.norm2"
        norms = (owner.replace("linear_fc1", "norm"), "post_norm")
        return next((norm for norm in norms if f"{norm}.weight" in self._tower.shapes), None)

    def _weight_behind_norm(self, owner: str) -> Matrix:
        """(out, in) times the norm's gain, for inputs in the new basis."""
        values, norm = self._wide(f"{owner}.weight"), self._norm_of(owner)
        gain = np.ones(1) if norm is None else self._wide(f"{norm}.weight")
        return self._right(values * np.tile(gain, values.shape[1] // len(gain)))

    def _bias_behind_norm(self, owner: str) -> Matrix:
        values, norm = self._wide(f"{owner}.weight"), self._norm_of(owner)
        if norm is None or f"{norm}.bias" not in self._tower.shapes:
            return self._wide(f"{owner}.bias")
        bias = self._wide(f"{norm}.bias")
        total: Matrix = self._wide(f"{owner}.bias") + (values * np.tile(bias, values.shape[1] // len(bias))).sum(1)
        return total

    def _right(self, values: Matrix) -> Matrix:
        """(rows, n * hidden) with every hidden-wide part in the new basis."""
        parts = values.reshape(-1, self._tower.hidden_size)
        return self._stream(parts.T).T.reshape(values.shape)

    def _heads(self, values: Matrix) -> Matrix:
        """(hidden, ...) with the channels of every head mixed."""
        heads, width = self._tower.num_heads, self._tower.head_dim
        parts = values.reshape(heads, width, -1).swapaxes(0, 1)  # (head_dim, heads, ...)
        return self._head(parts.reshape(width, -1)).reshape(parts.shape).swapaxes(0, 1).reshape(values.shape)
