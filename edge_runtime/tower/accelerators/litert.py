"""Google's LiteRT (TensorFlow Lite), whose interpreter runs a .tflite file on the processor of a device."""

import os
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, MissingExtra
from edge_runtime.tower.accelerators.grid_graph import Opening


class LiteRtGraph:
    """See GridGraph. Threads may share it; a lock gives it to one at a time, because its inputs lie in the interpreter."""

    def __init__(self, opening: Opening) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtra("provider litert", "litert") from error
        threads = opening.threads or os.cpu_count() or 1
        try:
            self._runner = Interpreter(str(opening.path), num_threads=threads).get_signature_runner()
            (self._input,) = self._runner.get_input_details()
        except (RuntimeError, ValueError) as error:
            raise BundleError(
                f"{opening.path} cannot be opened by LiteRT: {error}; install the ai-edge-litert that the manifest names, or "
                "export the bundle again"
            ) from error
        self._lock, self._num_outputs = Lock(), 1 + opening.num_levels

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._lock:
            found = self._runner(**{self._input: patches})
        return [np.asarray(found[f"output_{place}"], np.float32) for place in range(self._num_outputs)]


def open_graph(opening: Opening) -> LiteRtGraph:
    """See Provider.open."""
    return LiteRtGraph(opening)
