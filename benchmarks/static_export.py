"""Time and memory of static graphs at a real tower's size: `python -m benchmarks.static_export --targets openvino`.

The checkpoint has random weights (benchmarks.random_checkpoint), so the cosines say whether the toolchain computes the
graph, and nothing about a trained tower. The targets share the export's steps: the original answers two pictures, the
graph is written and held against it; then the toolchain compiles it and answers the pictures of the gate. The bundle's
other graph and its gate are measured by benchmarks.export_memory.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answers import MODEL
from benchmarks.machine import machine
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from benchmarks.result import add_out, finish
from export.gate.oracle import Oracle
from export.source.checkpoint import Checkpoint
from export.static import pictures
from export.static.choice import StaticPlan
from export.static.grid import grids_of
from export.static.publication import HEADER, StaticOriginal, Writer
from export.static.target import BY_NAME, EXPORTED

SIZE = "448x448"


def resident(process: int) -> int:
    """Bytes in memory of a process and of all below it."""
    folder = Path(f"/proc/{process}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = [int(word) for one in folder.glob("task/*/children") for word in one.read_text().split()]
    except OSError:  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident, children))


@contextmanager
def measured(found: dict[str, Any]) -> Iterator[None]:
    """Put wall seconds, CPU seconds and the largest resident memory, with all child processes, into `found`."""
    peak, is_done = [0], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.1):
            peak[0] = max(peak[0], resident(os.getpid()))

    watcher, started, before = threading.Thread(target=watch), time.monotonic(), sum(os.times()[:4])
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()
    found["seconds"] = round(time.monotonic() - started, 1)
    found["cpu_seconds"] = round(sum(os.times()[:4]) - before, 1)
    found["peak_rss_mb"] = round(peak[0] / 1e6)


def export(checkpoint: Checkpoint, target: str, folder: Path) -> dict[str, Any]:
    """One target's row."""
    tower = checkpoint.family.tower(checkpoint.facts)
    chosen, (grid,) = BY_NAME[target], grids_of(SIZE, tower)
    plan = StaticPlan((grid,), chosen, chosen.precisions[0], next(iter(chosen.chips), ""))
    asked = pictures.grid_pictures(None, checkpoint.image, checkpoint.card, grid)
    facts: dict[str, Any] = {"target": target, "precision": plan.precision, "chip": plan.chip}
    with measured(facts):
        oracle = Oracle(checkpoint.facts, checkpoint.image, list(checkpoint.tower_shapes), checkpoint.tower_tensor)
        two = [pictures.noise(tower, grid), asked.calibrating[0]]
        answers = [oracle(one, np.array([[1, grid.height, grid.width]], np.int64)) for one in two]
        del oracle
        read, report = tower.reader(checkpoint.tower_tensor), folder / "failed.json"
        writer = Writer(checkpoint.family, tower, read, checkpoint.image, plan, print, report)
        work = folder / target
        work.mkdir()
        (graph,) = writer.publish(work, StaticOriginal([two], [answers]), [asked])
    facts["toolchain_seconds"] = graph.figures.get("seconds", 0)
    facts["bytes"] = sum(path.stat().st_size for path in work.iterdir())
    return facts | {"toolchain": graph.toolchain, "figures": graph.figures}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of static graphs at a real tower's size.")
    parser.add_argument("--size", choices=SHAPES, default="2b", help="shape of the tower")
    parser.add_argument("--targets", nargs="+", default=["onnx", "openvino"], choices=EXPORTED)
    add_out(parser)
    args = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "model", MODEL, args.size)
        checkpoint = Checkpoint(folder / "model")
        rows = []
        for target in args.targets:
            rows.append(export(checkpoint, target, folder))
            print(json.dumps(rows[-1]), flush=True)
    result = {"benchmark": "static_export", "shape": args.size, "picture": SIZE, "machine": machine(), "rows": rows}
    finish(result, args.out)


if __name__ == "__main__":
    main()
