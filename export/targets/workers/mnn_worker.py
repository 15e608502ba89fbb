"""Alibaba's MNN on this processor: float32, or weights in 16 or 8 bits (blocks of 128), which it computes with in float32."""

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import MNN
import numpy as np

WEIGHTS = {"fp32": (), "fp16": ("--fp16",), "int8": ("--weightQuantBits", "8", "--weightQuantBlock", "128")}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    with np.load(job["pictures"]) as held:
        pictures = [held[f"p{i}"] for i in range(len(held.files))]
    started, file = time.monotonic(), job["file"]
    paths = ("--modelFile", job["graph"], "--MNNModel", file)
    convert = (sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--bizCode", "edge", *paths)
    subprocess.run([*convert, *WEIGHTS[job["precision"]]], check=True)
    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 2},))
    network = MNN.nn.load_module_from_file(file, ["patches"], job["outputs"], runtime_manager=manager)
    seconds = time.monotonic() - started
    answers: dict[str, Any] = {}
    for number, picture in enumerate(pictures):
        patches = MNN.expr.const(picture, list(picture.shape), MNN.expr.NCHW)
        for place, rows in enumerate(network.forward([patches])):
            answers[f"a{number}_{place}"] = np.array(MNN.expr.convert(rows, MNN.expr.NCHW).read())
    answering = time.monotonic() - started - seconds
    np.savez(job["answers"], **answers)
    toolchain = {"MNN": version("MNN")}
    result = {"file": file, "toolchain": toolchain, "seconds": seconds, "answering": answering}
    Path(job["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
