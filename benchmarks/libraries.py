"""One bundle with several libraries of kernels, in turns in one process: what a change of the kernels gained.

    python -m benchmarks.libraries BUNDLE BEFORE.so AFTER.so --sizes 256 512

It compares the other libraries with the first. It prints one JSON line with medians, and ratios of medians and of the
best calls: on a shared machine only ratios count. The first call of a turn is not timed: the session before it keeps its
threads awake for 50 ms, on the cores of this one.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.edge.driver import cosines
from benchmarks.edge.sizes import SIZES
from benchmarks.machine import machine
from benchmarks.result import finish
from edge_runtime.bundle import Bundle
from edge_runtime.tower.session_options import session_options


def sessions(bundle: Bundle, libraries: list[Path], threads: int) -> list[onnxruntime.InferenceSession]:
    made = []
    for library in libraries:
        options = session_options(threads)
        options.register_custom_ops_library(str(library.resolve()))
        made.append(onnxruntime.InferenceSession(str(bundle.graph), options, providers=["CPUExecutionProvider"]))
    return made


def measure(running: list[onnxruntime.InferenceSession], size: str, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Results by session: wall_ms, cpu_ms (medians), best_ms; their ratios, and its rows' cosines, to the first one."""
    frames, height, width = SIZES[size]
    patches = np.random.default_rng(4).integers(0, 256, (frames * height * width, 1536), np.uint8)
    feeds = {"patches": patches, "grid_thw": np.array([SIZES[size]], np.int64)}
    for number, session in enumerate(running):  # warms up too
        np.save(folder / f"{number}.npy", session.run(["image_embeds"], feeds)[0][None])
    wall: list[list[float]] = [[] for _ in running]
    cpu: list[list[float]] = [[] for _ in running]
    for _ in range(rounds):
        for number, session in enumerate(running):
            session.run(["image_embeds"], feeds)
            start, used = time.perf_counter(), time.process_time()
            session.run(["image_embeds"], feeds)
            wall[number].append(1e3 * (time.perf_counter() - start))
            cpu[number].append(1e3 * (time.process_time() - used))
    return [
        {
            "wall_ms": round(median(times), 1),
            "best_ms": round(min(times), 1),
            "cpu_ms": round(median(used), 1),
            "speedup": round(median(wall[0]) / median(times), 2),
            "best_speedup": round(min(wall[0]) / min(times), 2),
            "cosine_to_first": cosines(folder / "0.npy", folder / f"{number}.npy")["lowest"],
        }
        for number, (times, used) in enumerate(zip(wall, cpu, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="A bundle with several libraries of kernels, in turn.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("libraries", type=Path, nargs="+")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["256", "512"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file for the JSON")
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    running = sessions(bundle, args.libraries, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = {size: measure(running, size, args.rounds, Path(folder)) for size in args.sizes}
    result = {
        "benchmark": "libraries",
        "machine": machine(),
        "threads": args.threads,
        "load_average": round(os.getloadavg()[0], 2),
        "precision": bundle.manifest.precision,
        "libraries": [path.name for path in args.libraries],
        "sizes": rows,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
