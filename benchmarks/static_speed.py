"""A static graph against the graph of every size on this processor: `python -m benchmarks.static_speed`.

Both compute one picture of a tower of a 2B model's width, of random weights and `--layers` layers, on one thread. The
physics: both multiply the same matrices, so they differ by what stands around the products: the static graph spells
attention and the rotation of queries and keys in single operators, and the other one pays for its loop over pictures.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import random_checkpoint
from benchmarks.answers import MODEL
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from contract.static_graph import WEIGHTS
from edge_runtime.tower.any_size import NAMES
from edge_runtime.tower.session import CPU, open_session
from edge_runtime.tower.still import still_rows
from export.graph.data_file import DataFile
from export.graph.loop import write_graph
from export.source.checkpoint import Checkpoint
from export.static import pictures
from export.static.graph import INPUT, write_static_graph
from export.static.grid import grids_of
from export.static.proof import output_names
from export.static.target import BY_NAME


@dataclass(frozen=True)
class Files:
    """See tower.linked_graph.GraphFiles."""

    graph: Path
    weights: Path


def session(files: Files, *, use_kernels: bool) -> onnxruntime.InferenceSession:
    return open_session(files, provider=CPU, threads=1, use_kernels=use_kernels, low_memory=False)


def runs(size: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """What runs the picture, by name."""
    checkpoint = Checkpoint(folder / "model")
    tower = checkpoint.family.tower(checkpoint.facts)
    read, (grid,), image = tower.reader(checkpoint.tower_tensor), grids_of(size, tower), checkpoint.image
    write_graph(checkpoint.family, tower, read, image, folder / "vision.onnx")
    with DataFile(folder / WEIGHTS) as data:
        write_static_graph(
            checkpoint.family, tower, read, image, grid, folder / "static.onnx", data, **BY_NAME["onnx"].forms
        )
    every = Files(folder / "vision.onnx", folder / "vision.onnx.data")
    own, kernels = session(every, use_kernels=False), session(every, use_kernels=True)
    static = session(Files(folder / "static.onnx", folder / WEIGHTS), use_kernels=False)
    patches = pictures.noise(tower, grid)
    asked = {"patches": patches, "grid_thw": np.array([[1, grid.height, grid.width]], np.int64)}
    rows = still_rows(patches)
    return {
        "every size": lambda: own.run(NAMES, asked)[0],
        "every size, kernels": lambda: kernels.run(NAMES, asked)[0],
        "static": lambda: static.run(output_names(tower), {INPUT: rows})[0][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A static graph against the graph of every size on this processor.")
    parser.add_argument("--size", default="448x448", help="height and width of the picture in pixels")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=9)
    add_out(parser)
    args = parser.parse_args()
    random_checkpoint.SHAPES["shallow"] = random_checkpoint.SHAPES["2b"] | {
        "depth": args.layers,
        "deepstack_visual_indexes": [0],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_checkpoint.write_checkpoint(folder / "model", MODEL, "shallow")
        sides = runs(args.size, folder)
        first = {side: run() for side, run in sides.items()}  # and warm-up
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, run in sides.items():
                started = time.process_time()
                run()
                taken[side].append(time.process_time() - started)
    expected, medians = first["every size"], {side: statistics.median(seconds) for side, seconds in taken.items()}
    ratios = {
        side: round(statistics.median(a / b for a, b in zip(taken["static"], taken[side], strict=True)), 3)
        for side in ("every size", "every size, kernels")
    }
    result = {
        "benchmark": "static_speed",
        "machine": machine(),
        "picture": args.size,
        "layers": args.layers,
        "rounds": args.rounds,
        "cpu_ms": {side: round(1e3 * seconds, 1) for side, seconds in medians.items()},
        "static_takes_times": ratios,
        "largest_difference": float(np.abs(first["static"] - expected).max()),
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
