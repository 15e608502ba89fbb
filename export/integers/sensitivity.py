"""Which layers of a tower the integer precisions leave in fp16: those whose rounding costs its outputs most.

Trained towers differ: in one the first block carries what all others build on, in another a late one. So every block is
rounded alone, in the original's own code, and the outputs are compared with those of no rounding. The worst block stays
in fp16, and the last layer of the output that is worst off when all the others are rounded. Measured on one small picture.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.gate.oracle import Batch, Oracle, level_name
from export.graph.quantise import int8_columns
from export.graph.tower import Tower

if TYPE_CHECKING:
    import torch

UINT8_MAX, SMALLEST_STEP = 255, 1e-12


def half_layers(tower: Tower, prepared: Oracle, batch: Batch) -> tuple[str, ...]:
    """Prefixes of layer names: a block, and a merger's last layer.

    Args:
        prepared: the tower whose weights are about to be rounded.
        batch: one small picture.
    """
    with prepared.in_float64():
        exact, outputs = prepared.block_outputs(batch)

        def errors(first: int, prefix: str, but: tuple[str, ...] = ()) -> dict[str, float]:
            """By output, with the layers under `prefix` rounded; `first` is the first block that has one."""
            with prepared.answered(outputs[:first]), prepared.changed(_in_int8, prefix, but):
                return {name: _error(exact[name], rows) for name, rows in prepared(*batch).items()}

        worst_block = max(range(tower.depth), key=lambda i: sum(errors(i, f"blocks.{i}.").values()))
        block = f"blocks.{worst_block}."
        left = errors(0, "", (block,))
    worst = max(left, key=left.__getitem__)
    levels = {level_name(i): f"deepstack_merger_list.{merger}" for i, (_, merger) in enumerate(tower.levels)}
    return (block, f"{levels.get(worst, 'merger')}.linear_fc2")


def _error(exact: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """1 - cosine, mean of the token rows."""
    a, b = exact.astype(np.float64), other.astype(np.float64)
    return 1 - float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())


def _in_int8(layer: "torch.nn.Linear", rows: "torch.Tensor") -> "torch.Tensor":
    """The layer with signed columns and unsigned rows, each with a step of its own, as export.graph.linear stores it."""
    import torch

    values, steps = int8_columns(layer.weight.numpy())  # (in, out), (out,)
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / UINT8_MAX).clamp(min=SMALLEST_STEP)
    zero = (-low / step).round()
    near = ((rows / step).round() + zero).clamp(0, UINT8_MAX) - zero
    weight = torch.from_numpy(values.T * steps[:, None])
    return torch.nn.functional.linear(near * step, weight.to(rows.dtype), layer.bias.to(rows.dtype))
