"""Intel's OpenVINO: fp16 from the ONNX graph itself, or 8-bit integers by nncf as a file of its own."""

import time
from typing import Any

import numpy as np
import openvino
from job_files import answer_all, read_job


def main() -> None:
    job, pictures = read_job()
    started, core, file = time.monotonic(), openvino.Core(), None
    model = core.read_model(job["graph"])
    packages = ["openvino"]
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
        packages.append("nncf")
        file = f"{job['file']}.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def answer(picture: Any) -> list[Any]:
        request.infer({"patches": picture})
        return [np.array(request.get_tensor(name).data) for name in job["outputs"]]

    answer_all(job, pictures, started, file, answer, packages)


if __name__ == "__main__":
    main()
