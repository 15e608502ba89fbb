"""A tower of fixed tiles: one ONNX body for the vision transformers of CLIP, SigLIP and InternViT.

Tensors have tower-local names that the Qwen towers have, too (`blocks.0.attn.qkv.weight`); `sources` says which of the
checkpoint's tensors make each of them. A tensor that a checkpoint lacks, such as a bias, is zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from contract.preprocessing import ImageProcessing
from export.graph.builder import Builder
from export.graph.group import Group
from export.graph.layers import Attend, Layers
from export.graph.linear import FP32, LinearSource
from export.graph.tower import OTHER_RELEASE, Read, Tower, block_shapes, linear_shapes, norm_shapes

PATCH = "patch_embed.proj"
MIDDLE = 128  # the middle of the bytes, and their divisor


@dataclass(frozen=True, kw_only=True)
class TileTower(Tower):
    """A tower that takes tiles of one size.

    Attributes:
        features: the hidden states that the connector takes, side by side: n is block n's output, counted from 1, and 0
            is the input of the first block.
        has_class_row: a learned row stands before the patches.
        keeps_class_row: the class row reaches the connector.
        has_pre_norm: a norm stands before the first block.
        connector_activation: the activation function between the connector's two layers, by transformers' name.
        connector_epsilon: the epsilon of a norm before them; None where there is no norm.
        connector_layers: 2, or 1 without an activation.
        has_post_norm: a norm stands behind the last block.
        sources: tower-local name to the checkpoint's tensors that make it, one after the other; empty where it is zero.
        scales: tower-local name to the checkpoint's tensor that multiplies its rows.
        ignored: how the names of tensors begin on which these features do not depend.
    """

    features: tuple[int, ...]
    table_side: int = 0
    taps: tuple[int, ...] = ()
    temporal_patch_size: int = 1
    rope_theta: float = 0.0
    has_class_row: bool = False
    keeps_class_row: bool = False
    has_pre_norm: bool = False
    connector_activation: str = "gelu"
    connector_epsilon: float | None = None
    connector_layers: int = 2
    has_post_norm: bool = False
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    scales: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """Patches along a side of a tile."""
        assert self.fixed_side is not None
        return self.fixed_side

    @property
    def num_positions(self) -> int:
        """Rows of a tile inside the tower."""
        return self.side**2 + self.has_class_row

    def check(self, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """As Tower.check, but by the checkpoint's own names."""
        known = set(self.scales.values())
        for name, shape in self.shapes.items():
            parts = self.sources[name]
            known.update(parts)
            if missing := next((part for part in parts if part not in found), None):
                raise BundleError(
                    f"tower tensor {missing!r} is missing, config.json asks for it: give a complete checkpoint"
                )
            got = sum(int(np.prod(found[part][1])) for part in parts)
            if parts and got != int(np.prod(shape)):
                shapes = [list(found[part][1]) for part in parts]
                raise BundleError(
                    f"tower tensors {list(parts)} have shapes {shapes}, config.json asks for {list(shape)}"
                )
        if unknown := sorted(name for name in found.keys() - known if not name.startswith(self.ignored)):
            raise BundleError(f"tower tensor {unknown[0]!r} is unknown, the graph would ignore it: {OTHER_RELEASE}")

    def reader(self, read: Read) -> Read:
        """A reader of tower-local names, from `read`, which takes the checkpoint's names; float32."""

        def reading(name: str) -> NDArray[np.float32]:
            parts, shape = self.sources[name], self.shapes[name]
            if not parts:
                return np.zeros(shape, np.float32)
            values = np.concatenate([read(part).reshape(-1) for part in parts]).reshape(shape)
            if (scale := self.scales.get(name)) is not None:
                values = values * read(scale).reshape(-1, *[1] * (len(shape) - 1))
            return values

        return reading


def shapes(tower: TileTower) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a tower."""
    hidden, out = tower.hidden_size, tower.out_hidden_size
    joined = len(tower.features) * hidden * tower.merge_size**2
    found: dict[str, tuple[int, ...]] = {
        f"{PATCH}.weight": (hidden, 3, tower.patch_size, tower.patch_size),
        f"{PATCH}.bias": (hidden,),
        "pos_embed.weight": (tower.num_positions, hidden),
    }
    if tower.has_class_row:
        found["class_embed"] = (hidden,)
    if tower.has_pre_norm:
        found |= norm_shapes("pre_norm", hidden)
    for number in range(tower.depth):
        found |= block_shapes(number, hidden, tower.intermediate_size)
        if tower.has_qk_norm:
            found |= {f"blocks.{number}.attn.{norm}.weight": (hidden,) for norm in ("q_norm", "k_norm")}
    if tower.connector_epsilon is not None:
        found |= norm_shapes("merger.norm", joined)
    if tower.has_post_norm:
        found |= norm_shapes("post_norm", hidden)
    found |= linear_shapes("merger.linear_fc1", out, joined)
    return found | linear_shapes("merger.linear_fc2", out, out) if tower.connector_layers == 2 else found


def for_bytes(read: Read, image: ImageProcessing) -> Read:
    """See export.families.Family: the patch embedding of (byte - 128) / 128 instead of normalised pixels."""
    mean, std = (np.array(values)[:, None, None] for values in (image.mean, image.std))  # float64 (3, 1, 1)
    gain, offset = MIDDLE / 255 / std, (MIDDLE / 255 - mean) / std

    def change(name: str) -> NDArray[np.float32]:
        if name == f"{PATCH}.weight":
            return np.asarray(read(name) * gain, np.float32)
        if name == f"{PATCH}.bias":
            weight = read(f"{PATCH}.weight").astype(np.float64)  # (hidden, 3, patch, patch)
            return np.asarray(read(name) + (weight * offset).reshape(len(weight), -1).sum(1), np.float32)
        return read(name)

    return change


def body(graph: Builder, layers: Layers, tower: Tower, group: Group) -> tuple[str, list[str]]:
    """The tower over a group of tiles; see export.families.Family."""
    assert isinstance(tower, TileTower)
    op, hidden, count = graph.op, tower.hidden_size, tower.num_positions
    outputs = hidden_states(graph, layers, tower, group)
    taken = [outputs[number] for number in tower.features]
    rows = taken[0] if len(taken) == 1 else op("Concat", taken, axis=1)  # (tiles * count, features * hidden)
    if tower.has_post_norm:
        rows = layers.norm(rows, "post_norm")
    width = len(taken) * hidden
    if tower.has_class_row and not tower.keeps_class_row:
        rows = op("Reshape", [rows, graph.ints(-1, count, width)])
        rows = op("Slice", [rows, graph.ints(1), graph.ints(count), graph.ints(1)])
    rows = op("Reshape", [rows, graph.ints(-1, width * tower.merge_size**2)])  # blocks of patches lie side by side
    if tower.connector_epsilon is not None:
        rows = layers.norm(rows, "merger.norm", tower.connector_epsilon)
    rows = layers.linear(rows, "merger.linear_fc1")
    if tower.connector_layers == 1:
        return rows, []
    return layers.linear(layers.activation(rows, tower.connector_activation), "merger.linear_fc2"), []


def hidden_states(graph: Builder, layers: Layers, tower: TileTower, group: Group) -> list[str]:
    """The input of the first block, then the output of each block, (tiles * positions, hidden)."""
    op, hidden, count = graph.op, tower.hidden_size, tower.num_positions
    rows = _embedded(graph, layers, tower, group)  # (tiles * count, hidden)
    ones = partial(np.ones, (count, tower.head_dim // 2), np.float32)
    zeros = partial(np.zeros, (count, tower.head_dim // 2), np.float32)
    still = graph.weight("no_rotation_cosines", ones), graph.weight("no_rotation_sines", zeros)
    frames = op("Concat", [group.frames, graph.ints(count, 3 * hidden)], "group_shape", axis=0)
    return blocks(layers, tower, rows, layers.whole_frames(still, frames))


def blocks(layers: Layers, tower: TileTower, rows: str, attend: Attend) -> list[str]:
    """The rows, then the output of each block, all (tiles * positions, hidden)."""
    outputs = [rows]
    for number in range(tower.depth):
        outputs.append(layers.block(outputs[-1], number, attend))
    return outputs


def patch_rows(graph: Builder, layers: Layers, tower: TileTower, group: Group) -> str:
    """uint8 (patches, patch_width) to (patches, hidden), without positions."""
    hidden, read, width = tower.hidden_size, layers.read, tower.patch_width
    pixels = graph.op("DequantizeLinear", [group.patches, graph.scalar(1 / MIDDLE), graph.scalar(MIDDLE, np.uint8)])

    def weight() -> NDArray[np.float32]:
        return read(f"{PATCH}.weight").reshape(hidden, width)

    return FP32(graph, pixels, LinearSource(PATCH, width, hidden, weight, lambda: read(f"{PATCH}.bias")))


def _embedded(graph: Builder, layers: Layers, tower: TileTower, group: Group) -> str:
    """uint8 (tiles * side^2, patch_width) to (tiles * positions, hidden)."""
    op, hidden, read = graph.op, tower.hidden_size, layers.read
    rows = patch_rows(graph, layers, tower, group)
    tiles = op("Concat", [group.frames, graph.ints(tower.side**2, hidden)], axis=0)
    rows = op("Reshape", [rows, tiles])

    def places() -> NDArray[np.float32]:
        """Positions of the patches in the order of merge blocks, (side^2, hidden)."""
        side, merge = tower.side, tower.merge_size
        table = read("pos_embed.weight")[int(tower.has_class_row) :]
        blocks = table.reshape(side // merge, merge, side // merge, merge, hidden).swapaxes(1, 2)
        return np.ascontiguousarray(blocks.reshape(side**2, hidden))

    rows = op("Add", [rows, graph.weight("positions", places)])  # (tiles, side^2, hidden)
    if tower.has_class_row:

        def first() -> NDArray[np.float32]:
            row: NDArray[np.float32] = (read("class_embed") + read("pos_embed.weight")[0])[None, None]
            return row

        shape = op("Concat", [group.frames, graph.ints(1, hidden)], axis=0)
        start = op("Expand", [graph.weight("class_row", first), shape])  # (tiles, 1, hidden)
        rows = op("Concat", [start, rows], axis=1)
    rows = op("Reshape", [rows, graph.ints(-1, hidden)])
    return layers.norm(rows, "pre_norm") if tower.has_pre_norm else rows
