"""One engine in a process of its own, stepped by the driver over pipes: `python -m benchmarks.edge.worker`.

Each line of input is a JSON list: name of the item, its grid, where to save the embeddings. Each line of output is a JSON
object. Seconds of the CPU are of the whole process, every thread counted.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.edge.engines import ENGINES
from edge_runtime.patches import normalised
from export.packs import pixels
from export.tower import Tower


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

    config = json.loads((cache / f"checkpoint-{depth}" / "config.json").read_text())
    tower, items = Tower.from_config(config), dict[str, np.ndarray]()
    half = (0.5, 0.5, 0.5)
    started = time.perf_counter()
    engine = ENGINES[name](cache, depth, threads)
    answer(load_s=time.perf_counter() - started, file_mb=engine.file_bytes / 1e6, rss_mib=memory_mib("VmRSS"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of running, not of loading
    for line in sys.stdin:
        item, grid, path = json.loads(line)
        if item not in items:
            patches = pixels(tower, (tuple(grid),), 1)
            items[item] = patches if engine.takes_bytes else normalised(patches, half, half)
        wall, cpu = time.perf_counter(), time.process_time()
        main_rows, levels = engine(items[item], tuple(grid))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if path:
            np.save(path, np.concatenate([main_rows[None], levels]))
        answer(wall_s=wall, cpu_s=cpu, peak_mib=memory_mib("VmHWM"))


if __name__ == "__main__":
    main()
