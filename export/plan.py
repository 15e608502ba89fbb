"""What an export will cost, from the config alone: sizes, memory, disk and the work of the gate.

The export shows the plan before it reads a tensor, and --dry-run stops there. It refuses a disk that is too small here
and not after minutes.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import InvalidInput
from export.gate.packs import first_level_packs_for, flop, packs_for
from export.graph.tower import Tower
from export.precision import BY_NAME, Precision
from export.progress import READ_FLOP, WRITE_FLOP
from export.static.grid import Grid

FP16 = BY_NAME["fp16"]
FLOAT32 = ("pos_embed", "patch_embed.proj")  # float32 in every precision
HALF = ("blocks.0.", "merger.linear_fc2")  # as much as export.integers.sensitivity will leave in fp16
INPUTS_FLOP = 2e11  # what the gates of processor and prompts take for any checkpoint
BASE_BYTES = 700_000_000  # torch, transformers, the original's answers, activations of one pack


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes, work in floating point operations. bundle_bytes and peak_bytes are estimates; costs has the work
    of each stage by name."""

    parameters: int
    tower_fp32_bytes: int
    bundle_bytes: int
    peak_bytes: int
    packs: int
    flop: float
    costs: dict[str, float]

    @classmethod
    def of(cls, tower: Tower, precision: Precision, grids: Sequence[Grid] = ()) -> "Plan":
        """The plan of one tower in one precision, and of a static graph for each of some grids."""
        shapes, stored = tower.shapes, 0.0
        for name, shape in shapes.items():
            owner, _, kind = name.rpartition(".")
            is_matrix = kind == "weight" and len(shape) > 1 and owner not in FLOAT32
            stored_as = FP16 if precision.is_integer and owner.startswith(HALF) else precision
            stored += math.prod(shape) * (stored_as.weight_bytes if is_matrix else 4)
        fp32 = 4 * sum(math.prod(shape) for shape in shapes.values())
        whole, largest = packs_for(tower), first_level_packs_for(tower)
        work = sum(flop(tower, pack) for pack in whole) + sum(
            flop(tower, pack, tower.num_first_blocks) for pack in largest
        )
        costs = {"checkpoint": READ_FLOP * fp32 / 2, "inputs": INPUTS_FLOP, "original": work}
        costs |= {"graph": WRITE_FLOP * fp32, "parity": work}
        if grids:
            on_grids = sum(2 * flop(tower, ((1, grid.height, grid.width),)) for grid in grids)
            costs["original"] += on_grids
            costs["static"] = WRITE_FLOP * fp32 + 2 * on_grids
            stored += fp32
        peak = BASE_BYTES + max(fp32 * 1.1, fp32 * precision.session_towers)
        return cls(fp32 // 4, fp32, int(stored), int(peak), len(whole) + len(largest), 2 * work, costs)

    def __str__(self) -> str:
        return (
            f"tower       {self.parameters / 1e6:.0f} million parameters, {self.tower_fp32_bytes / 1e6:.0f} MB in float32\n"
            f"bundle      about {self.bundle_bytes / 1e6:.0f} MB on disk\n"
            f"memory      about {self.peak_bytes / 1e9:.1f} GB at the peak\n"
            f"gate        {self.packs} packs, {self.flop / 1e12:.1f} TFLOP"
        )

    def require_disk(self, out: Path) -> None:
        """Check that the disk of `out` has room for the bundle beside an earlier one, which stays until the new one is
        whole.

        Raises:
            InvalidInput: the disk has too little room.
        """
        place = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
        free = shutil.disk_usage(place).free
        if free < self.bundle_bytes:
            raise InvalidInput(
                f"OUT is {out}, its disk has {free / 1e6:.0f} MB free: the bundle needs {self.bundle_bytes / 1e6:.0f} MB"
            )
