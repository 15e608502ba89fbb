"""Sessions of one operator, on the project's libraries or on what the graph says of it in standard operators.

A processor without the instructions runs the standard operators, and then only those are tested.
"""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from numpy.typing import NDArray

from edge_runtime.tower import kernels
from edge_runtime.tower.session_options import session_options
from tests.edge.operators import Inputs, graph

KERNELS = list(kernels.supported())
every_way = pytest.mark.parametrize("library", [None, *KERNELS], ids=lambda path: path.name if path else "standard")
every_kernel = pytest.mark.parametrize("library", KERNELS, ids=lambda path: path.name)


def session(
    kind: str, inputs: Inputs, constants: dict[str, NDArray], library: Path | None, num_threads: int = 1, profile: Path | None = None, low_memory: bool = False, **attributes: Any
) -> onnxruntime.InferenceSession:  # fmt: skip
    options = session_options(num_threads, low_memory=low_memory)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if library is not None:
        options.register_custom_ops_library(str(library))
    model = graph(kind, inputs, constants, **attributes)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
