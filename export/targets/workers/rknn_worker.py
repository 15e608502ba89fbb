"""Rockchip's NPU: fp16, or 8-bit integers (w8a8), as a file for one chip; the simulator in rknn-toolkit2 answers.

The toolkit's calls return a number other than 0 where they fail. It needs torch, which comes from this project's packages:
its own pin would download 5 GB.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from job_files import answer_all, read_job


def main() -> None:
    job, pictures = read_job()
    sys.path.append(job["packages"])
    from rknn.api import RKNN

    started, file, is_integer = time.monotonic(), f"{job['file']}", job["precision"] == "int8"
    toolkit = RKNN(verbose=False)
    integers = {"quantized_dtype": "w8a8", "quantized_algorithm": "normal"} if is_integer else {}
    toolkit.config(target_platform=job["chip"], optimization_level=3, **integers)
    require("load_onnx", toolkit.load_onnx(job["graph"]))
    listed = None
    if is_integer:
        for number, picture in enumerate(pictures[: job["num_calibration"]]):
            np.save(f"calibration{number}.npy", picture)
        listed = "calibration.txt"
        Path(listed).write_text("".join(f"calibration{number}.npy\n" for number in range(job["num_calibration"])))
    require("build", toolkit.build(do_quantization=is_integer, dataset=listed))
    require("export_rknn", toolkit.export_rknn(file))
    require("init_runtime", toolkit.init_runtime())  # without a target it is the simulator

    def answer(picture: Any) -> list[Any]:
        outputs = toolkit.inference(inputs=[picture])
        if outputs is None or len(outputs) != len(job["outputs"]):
            sys.exit(f"inference gave {outputs and len(outputs)} outputs, {len(job['outputs'])} are expected")
        return [np.asarray(rows, np.float32) for rows in outputs]

    answer_all(job, pictures, started, file, answer, ("rknn-toolkit2", "torch"))
    toolkit.release()


def require(call: str, returned: int) -> None:
    """End where a call of the toolkit failed."""
    if returned != 0:
        sys.exit(f"{call} returned {returned}")


if __name__ == "__main__":
    main()
