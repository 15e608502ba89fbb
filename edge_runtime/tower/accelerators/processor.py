"""A graph of one picture size on the processor itself, by onnxruntime: for tests, and to compare accelerators with."""

import numpy as np
from numpy.typing import NDArray

from edge_runtime.tower.accelerators.grid_graph import INPUT, Opening, output_names
from edge_runtime.tower.session import CPU, open_session


class ProcessorGraph:
    """See GridGraph. Safe to share between threads."""

    def __init__(self, opening: Opening) -> None:
        self._session = open_session(
            opening, provider=CPU, threads=opening.threads, use_kernels=False, low_memory=False
        )
        self._names = output_names(opening.num_levels)

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._names, {INPUT: patches})
        return found


def open_graph(opening: Opening) -> ProcessorGraph:
    """See Provider.open."""
    return ProcessorGraph(opening)
