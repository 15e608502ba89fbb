"""`python -m benchmarks.edge.worker`: one engine in a process of its own, which the driver steps over pipes.

Each line of input is a JSON list: name of the item, its grid, where to save the embeddings. Each line of output is a
JSON object. Seconds of the CPU are of the whole process, every thread counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.edge import weights
from benchmarks.edge.engines import ENGINES, Grid, Patches
from export.gate.packs import pixels
from export.graph.tower import Tower

SEED = 1


def item(tower: Tower, grid: Grid) -> Patches:
    """The picture that every engine gets: uint8 (patches, width)."""
    return pixels(tower, (grid,), SEED)


def memory_mib(field: str) -> float:
    """VmHWM (peak) or VmRSS (now) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main() -> None:
    name, cache, depth, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w")  # libraries print to stdout; their lines go to stderr
    os.dup2(2, 1)

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    tower, laid_out = weights.tower(cache, depth), dict[str, Any]()
    load = ENGINES[name].loader()
    started = time.perf_counter()
    engine = load(cache, depth, threads)
    load_s = round(time.perf_counter() - started, 2)
    answer(load_s=load_s, file_mb=round(engine.file_bytes / 1e6, 1), rss_mib=round(memory_mib("VmRSS")))
    for line in sys.stdin:
        size, grid, path = json.loads(line)
        if size not in laid_out:
            laid_out[size] = engine.lay_out(item(tower, tuple(grid)), tuple(grid))
        Path("/proc/self/clear_refs").write_text("5")  # so that the peak is that of this call
        wall, cpu = time.perf_counter(), time.process_time()
        main_rows, levels = engine(laid_out[size])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak_mib = memory_mib("VmHWM")
        if path:
            np.save(path, np.concatenate([main_rows[None], levels]))
        answer(wall_s=wall, cpu_s=cpu, peak_mib=peak_mib)


if __name__ == "__main__":
    main()
