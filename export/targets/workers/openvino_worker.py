"""Intel's OpenVINO: fp16 from the ONNX graph itself, or 8-bit integers by nncf as a file of its own."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    with np.load(job["pictures"]) as held:
        pictures = [held[f"p{i}"] for i in range(len(held.files))]
    started, core, file = time.monotonic(), openvino.Core(), None
    model = core.read_model(job["graph"])
    toolchain = {"openvino": version("openvino")}
    settings = {"INFERENCE_PRECISION_HINT": "f16"} if job["precision"] == "fp16" else {}
    if job["precision"] == "int8":
        import nncf
        from nncf.quantization import advanced_parameters, range_estimator

        # The rotation has evened the channels out. SmoothQuant behind it ruins the rows of a deepstack level.
        advanced = nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=advanced_parameters.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1),
            activations_range_estimator_params=range_estimator.RangeEstimatorParametersSet.MINMAX,
        )
        kind, chosen = nncf.ModelType.TRANSFORMER, pictures[: job["num_calibration"]]
        model = nncf.quantize(
            model, nncf.Dataset(chosen), subset_size=len(chosen), model_type=kind, advanced_parameters=advanced
        )
        toolchain["nncf"] = version("nncf")
        file = f"{job['file']}.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    seconds = time.monotonic() - started
    answers: dict[str, Any] = {}
    for number, picture in enumerate(pictures):
        request.infer({"patches": picture})
        for place, name in enumerate(job["outputs"]):
            answers[f"a{number}_{place}"] = np.array(request.get_tensor(name).data)
    answering = time.monotonic() - started - seconds
    np.savez(job["answers"], **answers)
    result = {"file": file, "toolchain": toolchain, "seconds": seconds, "answering": answering}
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
