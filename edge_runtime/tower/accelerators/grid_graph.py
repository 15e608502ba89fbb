"""What every accelerator's runtime offers: a graph of one picture size, ready to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

INPUT, MAIN = "patches", "image"


def output_names(num_levels: int) -> list[str]:
    """The graph's outputs in order: the main rows, then each level's."""
    return [MAIN, *(f"deep{level}" for level in range(num_levels))]


@dataclass(frozen=True)
class Opening:
    """How to open one file of a bundle.

    Attributes:
        path: the file.
        num_levels: deepstack levels of the tower.
        precision: how the accelerator computes.
        device: the part of the provider's name behind the colon; empty where it has none.
        threads: cores, where the accelerator is the processor; 0 takes all.
        allow_cpu_nodes: nodes that the accelerator does not take may run on the processor.
        weights: the file of the ONNX graphs' weights.
        chip: the chip for which the file was made; empty where it runs on all.
    """

    path: Path
    num_levels: int
    precision: str
    device: str
    threads: int
    allow_cpu_nodes: bool
    weights: Path
    chip: str = ""

    @property
    def graph(self) -> Path:
        """The file, as the module linked_graph names it."""
        return self.path


class GridGraph(Protocol):
    """A graph of one picture size."""

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The main rows and each level's rows, float32 (1, rows, H) each.

        Args:
            patches: float32 (1, patches, 3 * patch_size^2), from tower.still.still_rows.
        """
