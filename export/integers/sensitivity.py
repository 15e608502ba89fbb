"""Which layers of a tower the integer precisions leave in fp16: those whose rounding costs its outputs most.

Trained towers differ: in one the first block carries what all others build on, in another a late block does. So
`half_layers` rounds every block alone, in the original's own code, and compares the outputs with those without any
rounding. The worst block stays in fp16. Then it rounds everything else, and the last layer of the worst output stays in
fp16, too. One small picture is enough for both.
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
    """Two prefixes of layer names: a block, and a merger's last layer.

    Args:
        prepared: the original tower with the weights that the export is about to round.
        batch: one small picture.
    """
    with prepared.in_float64():
        exact, outputs = prepared.block_outputs(batch)

        def errors(first: int, prefix: str, but: tuple[str, ...] = ()) -> dict[str, float]:
            """Each output's error with rounded layers under `prefix`; `first` is the first block that has one."""
            with prepared.answered(outputs[:first]), prepared.changed(_in_int8, prefix, but):
                return {name: _error(exact[name], rows) for name, rows in prepared(*batch).items()}

        worst_block = max(range(tower.depth), key=lambda i: sum(errors(i, f"blocks.{i}.").values()))
        block = f"blocks.{worst_block}."
        left = errors(0, "", (block,))
    worst = max(left, key=left.__getitem__)
    levels = {level_name(i): f"deepstack_merger_list.{merger}" for i, (_, merger) in enumerate(tower.levels)}
    return (block, f"{levels.get(worst, 'merger')}.linear_fc2")


def _error(exact: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """1 - the mean cosine of the token rows; both arrays are (N, H)."""
    a, b = exact.astype(np.float64), other.astype(np.float64)
    return 1 - float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())


def _in_int8(layer: "torch.nn.Linear", rows: "torch.Tensor") -> "torch.Tensor":
    """The layer as the graph computes it in int8: signed columns and unsigned rows, each with a step of its own."""
    import torch

    values, steps = int8_columns(layer.weight.numpy())  # (in, out), (out,)
    low, high = rows.amin(-1, keepdim=True).clamp(max=0), rows.amax(-1, keepdim=True).clamp(min=0)
    step = ((high - low) / UINT8_MAX).clamp(min=SMALLEST_STEP)
    zero = (-low / step).round()
    near = ((rows / step).round() + zero).clamp(0, UINT8_MAX) - zero
    weight = torch.from_numpy(values.T * steps[:, None])
    return torch.nn.functional.linear(near * step, weight.to(rows.dtype), layer.bias.to(rows.dtype))
