"""Alibaba's MNN on this processor: float32, or weights in 16 or 8 bits (blocks of 128), which it computes with in float32."""

import subprocess
import sys
import time
from typing import Any

import MNN
import numpy as np
from job_files import answer_all, read_job

WEIGHTS = {"fp32": (), "fp16": ("--fp16",), "int8": ("--weightQuantBits", "8", "--weightQuantBlock", "128")}


def main() -> None:
    job, pictures = read_job()
    started, file = time.monotonic(), job["file"]
    paths = ("--modelFile", job["graph"], "--MNNModel", file)
    convert = (sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--bizCode", "edge", *paths)
    subprocess.run([*convert, *WEIGHTS[job["precision"]]], check=True)
    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 2},))
    network = MNN.nn.load_module_from_file(file, ["patches"], job["outputs"], runtime_manager=manager)

    def answer(picture: Any) -> list[Any]:
        patches = MNN.expr.const(picture, list(picture.shape), MNN.expr.NCHW)
        return [np.array(MNN.expr.convert(rows, MNN.expr.NCHW).read()) for rows in network.forward([patches])]

    answer_all(job, pictures, started, file, answer, ("MNN",))


if __name__ == "__main__":
    main()
