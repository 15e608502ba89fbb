"""Qualcomm's HTP: fp16, or 8-bit weights with 16-bit or 8-bit activations, run by the emulator in onnxruntime-qnn.

The session is strict: a node that the HTP does not take is an error. The weights are unsigned: with signed ones and
16-bit activations the HTP refuses every LayerNormalization.
"""

import time
from collections.abc import Iterator
from typing import Any

import onnxruntime
import onnxruntime_qnn
from job_files import answer_all, read_job
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model

ACTIVATIONS = {"a16w8": QuantType.QUInt16, "int8": QuantType.QUInt8}


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    """The calibration pictures, one after another."""

    def __init__(self, pictures: list[Any]) -> None:
        self._left: Iterator[Any] = iter(pictures)

    def get_next(self) -> Any:
        found = next(self._left, None)
        return None if found is None else {"patches": found}


def main() -> None:
    job, pictures = read_job()
    started, graph, file = time.monotonic(), job["graph"], None
    if job["precision"] in ACTIVATIONS:
        plain, file = "plain.onnx", f"{job['file']}.onnx"
        if qnn_preprocess_model(graph, plain, fuse_layernorm=False):
            graph = plain
        activations = ACTIVATIONS[job["precision"]]
        config = get_qnn_qdq_config(
            graph,
            Pictures(pictures[: job["num_calibration"]]),
            activation_type=activations,
            weight_type=QuantType.QUInt8,
        )
        quantize(graph, file, config)
        graph = file
    session = strict_session(graph, job["chip"])

    def answer(picture: Any) -> Any:
        return session.run(job["outputs"], {"patches": picture})

    answer_all(job, pictures, started, file, answer, ("onnxruntime", "onnxruntime-qnn"))


def strict_session(graph: str, chip: str) -> Any:
    """A session on the emulated HTP that runs every node there."""
    onnxruntime.register_execution_provider_library("QNN", onnxruntime_qnn.get_library_path())
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == "QNN"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "offload_graph_io_quantization": "0",
        "enable_htp_fp16_precision": "1",
        "soc_model": chip,
    }
    options.add_provider_for_devices(devices, settings)
    return onnxruntime.InferenceSession(graph, options)


if __name__ == "__main__":
    main()
