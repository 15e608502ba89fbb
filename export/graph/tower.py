"""A vision tower's shape, as its family reads it from a config, and the tensors that must therefore exist.

The graph reads its widths from here and nowhere else. Tensors have tower-local names, the same in every family, so that
the code that calibrates, rotates and measures a tower need not know its family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError

Read = Callable[[str], NDArray[np.float32]]
OTHER_RELEASE = "give config.json and tensors of one release"


def linear_shapes(name: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of a linear layer's tensors."""
    return {f"{name}.weight": (num_outputs, num_inputs), f"{name}.bias": (num_outputs,)}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of a norm's tensors."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block_shapes(number: int, hidden: int, wide: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of a transformer block's tensors."""
    name = f"blocks.{number}"
    return (
        norm_shapes(f"{name}.norm1", hidden)
        | linear_shapes(f"{name}.attn.qkv", 3 * hidden, hidden)
        | linear_shapes(f"{name}.attn.proj", hidden, hidden)
        | norm_shapes(f"{name}.norm2", hidden)
        | linear_shapes(f"{name}.mlp.linear_fc1", wide, hidden)
        | linear_shapes(f"{name}.mlp.linear_fc2", hidden, wide)
    )


@dataclass(frozen=True)
class Tower:
    """Widths of one vision tower.

    Attributes:
        taps: for each deepstack merger the number, from 0 on, of the block whose output it takes.
        table_side: rows and columns of the learned position table; 0 where there is none.
        shapes: tower-local name to shape of every tensor.
        activation: the activation function of the blocks, by transformers' name.
        has_qk_norm: a norm divides queries and keys by the root mean square over their whole width, before the split
            into heads.
        fixed_side: patches along a side of every frame, where the tower takes one size only; None for any size.
        is_rms: norms divide by the root mean square alone and have no bias.
        is_gated: the MLP multiplies its activation with a second layer, `linear_gate`, as SwiGLU does.
        window: patches along a side of the window that a row sees; 0 where every row sees its whole frame.
        full_blocks: blocks whose rows see their whole frame although the others have windows.
        zeros: name and shape of tensors that the graph has and the checkpoint lacks.
    """

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
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    activation: str = "gelu_pytorch_tanh"
    norm_epsilon: float = 1e-6
    fixed_side: int | None = None
    is_rms: bool = False
    is_gated: bool = False
    window: int = 0
    full_blocks: tuple[int, ...] = ()
    zeros: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    has_qk_norm: bool = False

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
        """(block, merger) of each deepstack level, in the order in which transformers returns them: by block."""
        return sorted((block, merger) for merger, block in enumerate(self.taps))

    @property
    def num_first_blocks(self) -> int:
        """Blocks that the gate runs where a pass is too large for the whole tower: to the first level, or a quarter."""
        return self.levels[0][0] + 1 if self.levels else max(1, self.depth // 4)

    def reader(self, read: Read) -> Read:
        """`read` of the checkpoint's tensors as a reader of the graph's, by the same names."""
        return lambda name: np.zeros(self.zeros[name], np.float32) if name in self.zeros else read(name)

    def check(self, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Compare the checkpoint's tower tensors, name to (dtype, shape), with what the config asks for.

        Raises:
            BundleError: a tensor is missing, has another shape or is unknown; the message names the first.
        """
        for name, shape in self.shapes.items():
            if name not in found:
                raise BundleError(
                    f"tower tensor {name!r} is missing, config.json asks for {list(shape)}: give a complete checkpoint"
                )
            if found[name][1] != shape:
                raise BundleError(
                    f"tower tensor {name!r} has shape {list(found[name][1])}, config.json asks for {list(shape)}"
                )
        if unknown := sorted(found.keys() - self.shapes.keys()):
            raise BundleError(f"tower tensor {unknown[0]!r} is unknown, the graph would ignore it: {OTHER_RELEASE}")
