"""Intel's processors, graphics and NPU by OpenVINO. It compiles a graph for one device as a whole or not at all."""

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput, MissingExtra
from edge_runtime.tower.accelerators.grid_graph import INPUT, Opening, output_names

HINTS = {"fp32": "f32", "fp16": "f16"}


class OpenVinoGraph:
    """See GridGraph. Each call makes a request of its own, so threads may share it."""

    def __init__(self, opening: Opening) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("provider openvino", "openvino") from error
        core = openvino.Core()
        found = core.available_devices
        if not any(one == opening.device or one.startswith(f"{opening.device}.") for one in found):
            raise InvalidInput(
                f"provider is 'openvino:{opening.device}', this machine has {', '.join(found)}: install the device's driver, or "
                f"name openvino:{found[0]}"
            )
        settings: dict[str, object] = {}
        if opening.precision in HINTS:
            settings["INFERENCE_PRECISION_HINT"] = HINTS[opening.precision]
        if opening.device == "CPU" and opening.threads:
            settings["INFERENCE_NUM_THREADS"] = opening.threads
        weights = opening.path.with_suffix(".bin")
        try:
            model = core.read_model(str(opening.path), str(weights) if weights.is_file() else "")
            self._compiled = core.compile_model(model, opening.device, settings)
        except RuntimeError as error:
            raise BundleError(
                f"{opening.path} cannot be compiled by OpenVINO {openvino.__version__} for {opening.device}: {error}; "
                "install the version that the manifest names, or export the bundle again"
            ) from error
        self._names = output_names(opening.num_levels)

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        request = self._compiled.create_infer_request()
        request.infer({INPUT: patches})
        return [np.array(request.get_tensor(name).data) for name in self._names]


def open_graph(opening: Opening) -> OpenVinoGraph:
    """See Provider.open."""
    return OpenVinoGraph(opening)
