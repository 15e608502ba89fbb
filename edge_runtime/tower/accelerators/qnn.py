"""Qualcomm's HTP by onnxruntime and its plugin onnxruntime-qnn; on x86 the plugin emulates it, many times slower.

onnxruntime would run what the HTP refuses on the processor and say nothing, so the session is strict unless the caller
allows that.
"""

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput, MissingExtra
from edge_runtime.tower.accelerators.grid_graph import INPUT, Opening, output_names
from edge_runtime.tower.linked_graph import graph_source
from edge_runtime.tower.session_options import session_options

NO_FALLBACK = "session.disable_cpu_ep_fallback"  # onnxruntime_session_options_config_keys.h
NAME = "QNN"


@cache
def _plugin() -> Any:
    """The plugin's module, with its library registered in this process.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime_qnn
    except ImportError as error:
        raise MissingExtra("provider qnn", "qnn") from error
    onnxruntime.register_execution_provider_library(NAME, onnxruntime_qnn.get_library_path())
    return onnxruntime_qnn


class HtpGraph:
    """See GridGraph. Safe to share between threads."""

    def __init__(self, opening: Opening) -> None:
        plugin = _plugin()
        options = session_options(opening.threads)
        options.add_session_config_entry(NO_FALLBACK, str(int(not opening.allow_cpu_nodes)))
        devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == NAME]
        settings = {"backend_path": plugin.get_qnn_htp_path(), "offload_graph_io_quantization": "0"}
        if opening.chip:
            settings["soc_model"] = opening.chip
        if opening.precision == "fp16":
            settings["enable_htp_fp16_precision"] = "1"
        options.add_provider_for_devices(devices, settings)
        try:
            self._session = onnxruntime.InferenceSession(graph_source(opening, options), options)
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no public root
            if "fallback" in str(error):
                raise InvalidInput(
                    f"provider qnn leaves nodes of {opening.path.name} on the processor: allow it with allow_cpu_nodes "
                    f"(--allow-cpu-nodes), or export with another --target-precision ({error})"
                ) from error
            raise BundleError(
                f"{opening.path} cannot be loaded by onnxruntime {onnxruntime.__version__} with QNN: {error}; export the "
                f"bundle again for this chip (--chip)"
            ) from error
        self._names = output_names(opening.num_levels)

    def run(self, patches: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._names, {INPUT: patches})
        return found


def open_graph(opening: Opening) -> HtpGraph:
    """See Provider.open."""
    return HtpGraph(opening)
