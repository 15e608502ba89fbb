"""The tower's shape: what vision_config says, checked once, and the tensors that must therefore exist.

The graph reads its widths from here and nowhere else. Anything the graph would have to ignore is refused, because an
ignored tensor or option is a wrong embedding without an error.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contract.card import deepstack_blocks
from contract.errors import BundleError

ACTIVATION = "gelu_pytorch_tanh"
ROPE_THETA = 10_000.0  # transformers' default where the config is silent


@dataclass(frozen=True)
class Tower:
    """Widths of one vision tower. `taps` are block numbers in the order of their mergers, 0-based."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    table_side: int
    taps: tuple[int, ...]
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    rope_theta: float

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_width(self) -> int:
        """Values of one patch."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    @property
    def merged_size(self) -> int:
        """Width of merge_size x merge_size patches side by side."""
        return self.hidden_size * self.merge_size**2

    @property
    def levels(self) -> list[tuple[int, int]]:
        """(block, merger) per deepstack level, in the order transformers returns them: by block."""
        return sorted((block, merger) for merger, block in enumerate(self.taps))

    @property
    def num_first_blocks(self) -> int:
        """Blocks that a pass too large for the whole tower goes through: to the first level, or a quarter of all."""
        return self.levels[0][0] + 1 if self.levels else max(1, self.depth // 4)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Tower":
        """Read vision_config of a transformers config.json.

        Raises:
            BundleError: a key is missing, or asks for something the graph does not compute.
        """
        try:
            vision = config["vision_config"]
            rope = vision.get("rope_parameters") or {}
            tower = cls(
                depth=vision["depth"],
                hidden_size=vision["hidden_size"],
                intermediate_size=vision["intermediate_size"],
                num_heads=vision["num_heads"],
                out_hidden_size=vision["out_hidden_size"],
                table_side=math.isqrt(vision["num_position_embeddings"]),
                taps=deepstack_blocks(config),
                patch_size=vision["patch_size"],
                temporal_patch_size=vision["temporal_patch_size"],
                merge_size=vision["spatial_merge_size"],
                rope_theta=float(rope.get("rope_theta", ROPE_THETA)),
            )
        except KeyError as error:
            raise BundleError(f"config.json has no key {error.args[0]!r}: is this a Qwen3-VL checkpoint?") from error
        for key, value, allowed in (
            ("hidden_act", vision.get("hidden_act", ACTIVATION), ACTIVATION),
            ("in_channels", vision.get("in_channels", 3), 3),
            ("temporal_patch_size", vision["temporal_patch_size"], 2),
            ("rope_parameters.rope_type", rope.get("rope_type", "axial"), "axial"),
            ("head_dim", vision.get("head_dim", tower.head_dim), tower.head_dim),
            ("num_position_embeddings", vision["num_position_embeddings"], tower.table_side**2),
        ):
            if value != allowed:
                raise BundleError(f"vision_config.{key} is {value!r}, the graph computes {allowed!r}")
        if tower.hidden_size % tower.num_heads or tower.head_dim % 4:
            raise BundleError(
                f"vision_config: hidden_size {tower.hidden_size} over {tower.num_heads} heads must give heads whose "
                "width is a multiple of 4"
            )
        if len(set(tower.taps)) != len(tower.taps) or not all(0 <= tap < tower.depth for tap in tower.taps):
            raise BundleError(
                f"vision_config.deepstack_visual_indexes is {list(tower.taps)}, different blocks from 0 to "
                f"{tower.depth - 1} are allowed"
            )
        return tower

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, as in transformers' Qwen3VLVisionModel."""
        hidden, wide, merged = self.hidden_size, self.intermediate_size, self.merged_size
        patch = (3, self.temporal_patch_size, self.patch_size, self.patch_size)

        def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield f"{name}.weight", (rows, columns)
            yield f"{name}.bias", (rows,)

        def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield f"{name}.weight", (width,)
            yield f"{name}.bias", (width,)

        def merger(name: str, norm_width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
            yield from norm(f"{name}.norm", norm_width)
            yield from linear(f"{name}.linear_fc1", merged, merged)
            yield from linear(f"{name}.linear_fc2", self.out_hidden_size, merged)

        yield "patch_embed.proj.weight", (hidden, *patch)
        yield "patch_embed.proj.bias", (hidden,)
        yield "pos_embed.weight", (self.table_side**2, hidden)
        for i in range(self.depth):
            yield from norm(f"blocks.{i}.norm1", hidden)
            yield from linear(f"blocks.{i}.attn.qkv", 3 * hidden, hidden)
            yield from linear(f"blocks.{i}.attn.proj", hidden, hidden)
            yield from norm(f"blocks.{i}.norm2", hidden)
            yield from linear(f"blocks.{i}.mlp.linear_fc1", wide, hidden)
            yield from linear(f"blocks.{i}.mlp.linear_fc2", hidden, wide)
        yield from merger("merger", hidden)
        for i in range(len(self.taps)):
            yield from merger(f"deepstack_merger_list.{i}", merged)

    def check(self, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Compare the checkpoint's tower tensors, name to (dtype, shape), with what the config asks for.

        Raises:
            BundleError: naming the first tensor that is missing, of another shape or unknown.
        """
        expected = dict(self.tensors())
        for name, shape in expected.items():
            if name not in found:
                raise BundleError(f"tower tensor {name!r} is missing, config.json asks for {list(shape)}")
            if found[name][1] != shape:
                raise BundleError(
                    f"tower tensor {name!r} has shape {list(found[name][1])}, config.json asks for {list(shape)}"
                )
        if unknown := sorted(found.keys() - expected.keys()):
            raise BundleError(f"tower tensor {unknown[0]!r} is unknown: the graph would ignore it")
