"""Apple's Neural Engine and graphics by Core ML, on a Mac. The bundle holds a .mlpackage, which is a folder, as a zip file.

Core ML chooses a unit for each operation. Its plan names what stays on the processor before the first picture comes.
"""

import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput, MissingExtra
from edge_runtime.tower.accelerators.grid_graph import INPUT, Opening, output_names

PLATFORM = sys.platform
UNITS = {"NE": "CPU_AND_NE", "GPU": "CPU_AND_GPU", "CPU": "CPU_ONLY"}  # of coremltools.ComputeUnit
BORDER = "cast"  # between the float32 outside and the float16 inside: it may run on the processor


class CoreMlGraph:
    """See GridGraph. Threads may share it; a lock gives it to one at a time."""

    def __init__(self, opening: Opening) -> None:
        if PLATFORM != "darwin":
            raise InvalidInput(
                f"provider coreml runs on macOS 14 or newer, this machine has {PLATFORM}: run without --provider here"
            )
        try:
            import coremltools
        except ImportError as error:
            raise MissingExtra("provider coreml", "coreml") from error
        self._lock, self._names = Lock(), output_names(opening.num_levels)
        self._folder = tempfile.TemporaryDirectory(prefix="edge-vlm-coreml-")
        units = coremltools.ComputeUnit[UNITS[opening.device]]
        try:
            package = _unpacked(opening.path, Path(self._folder.name))
            self._model = coremltools.models.MLModel(str(package), compute_units=units)
            left = [] if opening.device == "CPU" else sorted(set(_on_the_processor(self._model, units)))
        except Exception as error:  # coremltools' exceptions have no common root
            raise BundleError(
                f"{opening.path} cannot be opened by coremltools {coremltools.__version__}: {error}; it needs macOS 14, else "
                "export the bundle again"
            ) from error
        if left and not opening.allow_cpu_nodes:
            raise InvalidInput(
                f"provider coreml:{opening.device} leaves operations of {opening.path.name} on the processor "
                f"({', '.join(left)}): allow it with allow_cpu_nodes (--allow-cpu-nodes), or name another device"
            )

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._lock:
            found = self._model.predict({INPUT: patches})
        return [np.asarray(found[name], np.float32) for name in self._names]


def _unpacked(path: Path, folder: Path) -> Path:
    """The package of a zip file, in a folder.

    Raises:
        zipfile.BadZipFile, ValueError: the file holds something else.
    """
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (package,) = folder.glob("*.mlpackage")
    return package


def _on_the_processor(model: Any, units: Any) -> Iterator[str]:
    """The kinds of operations that Core ML's plan runs on the processor."""
    from coremltools.models.compute_device import MLCPUComputeDevice
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(model.get_compiled_model_path(), compute_units=units)
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        kind = operation.operator_name.rpartition(".")[2]  # such as ios17.linear
        if usage is not None and isinstance(usage.preferred_compute_device, MLCPUComputeDevice) and kind != BORDER:
            yield kind


def open_graph(opening: Opening) -> CoreMlGraph:
    """See Provider.open."""
    return CoreMlGraph(opening)
