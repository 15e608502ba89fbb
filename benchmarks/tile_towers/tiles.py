"""The towers of the benchmark, and the tiles that all engines answer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.items.patches import normalised
from export import families
from export.gate.packs import flop, pixels
from export.source.checkpoint import Checkpoint

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A tower of the benchmark: its family, the pixels of a tile's side, and how many tiles one call takes."""

    family: str
    side: int
    counts: tuple[int, ...]


CASES = {"CLIP L/14-336": Case("llava", 336, (1, 5)), "InternViT-300M": Case("internvl", 448, (13,))}


class Tiles:
    """The tiles of one tower, as patches for our encoder and as pixels for the others."""

    def __init__(self, checkpoint: Path, case: Case) -> None:
        self.source = source = Checkpoint(checkpoint)
        self.tower = families.tower(source.config)
        side = self.tower.fixed_side or 0
        self.grids = {count: (count, side, side) for count in case.counts}
        self.patches = {count: pixels(self.tower, (grid,), 1) for count, grid in self.grids.items()}
        self.pixels = {count: self._pixels(count) for count in case.counts}

    def _pixels(self, count: int) -> Rows:
        """Normalised tiles, float32 (count, 3, side, side)."""
        values = normalised(self.patches[count], self.source.image.mean, self.source.image.std)
        side, merge, patch = self.grids[count][1], self.tower.merge_size, self.tower.patch_size
        blocks = values.reshape(count, side // merge, side // merge, merge, merge, 3, patch, patch)
        whole = blocks.transpose(0, 5, 1, 3, 6, 2, 4, 7)  # (count, 3, rows of blocks, in block, in patch, columns ...)
        return np.ascontiguousarray(whole.reshape(count, 3, side * patch, side * patch))

    def tflop(self, count: int) -> float:
        return flop(self.tower, (self.grids[count],)) / 1e12
