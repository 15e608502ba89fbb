"""Time from opening a bundle to its first embedding, and the memory of several processes: `python -m benchmarks.edge_start`.

Each round starts a process for each way, one after the other, and takes the median of the rounds: `fast` copies the
weights into the order that suits the processor, `low_memory` reads them where the file is mapped. The file is in the
page cache. The last part opens the bundle in several processes at once and reads PSS, in which a page that n processes
share counts as 1/n for each. The last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.result import add_out, finish

MODES = ("fast", "low_memory")
SIDES = (256, 512)
CHILD = """
import json, re, sys, time
import numpy as np
from edge_runtime import Encoder
from edge_runtime.items.item import Item

side = int(sys.argv[3]) // 16
item = Item(np.random.default_rng(0).integers(0, 256, (side * side, 1536), np.uint8), (1, side, side))
begun, cpu = time.perf_counter(), time.process_time()
encoder = Encoder.from_bundle(sys.argv[1], low_memory=sys.argv[2] == "low_memory")
loaded = time.perf_counter()
encoder.encode([item])
first, first_cpu = time.perf_counter(), time.process_time()
encoder.encode([item])
told = {"load_s": loaded - begun, "first_embedding_s": first - begun, "second_s": time.perf_counter() - first,
        "first_embedding_cpu_s": first_cpu - cpu}
print(json.dumps(told), flush=True)
sys.stdin.readline()  # the others are open, too
text = open("/proc/self/smaps_rollup").read()
print(json.dumps({name: int(re.search(f"^{name}:\\\\s+(\\\\d+)", text, re.M)[1]) * 1024 for name in ("Pss", "Pss_Anon", "Pss_File")}), flush=True)
"""


class Opened:
    """A process that has encoded a picture of `side` pixels twice and holds the bundle until `memory` is read."""

    def __init__(self, bundle: Path, mode: str, side: int) -> None:
        words = [sys.executable, "-c", CHILD, str(bundle), mode, str(side)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> dict[str, float]:
        assert self._process.stdout is not None
        told: dict[str, float] = json.loads(self._process.stdout.readline())
        return told

    def times(self) -> dict[str, float]:
        """Seconds of the load, of load and first picture together, and of the second picture."""
        return self._line()

    def memory(self) -> dict[str, float]:
        """Bytes of PSS, whole and by kind of page."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()


def times(bundle: Path, rounds: int) -> list[dict[str, Any]]:
    ways = [(mode, side) for side in SIDES for mode in MODES]
    found: dict[tuple[str, int], list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for mode, side in ways:
            with Opened(bundle, mode, side) as opened:
                found[mode, side].append(opened.times())
    return [
        {"mode": mode, "picture": f"{side}x{side}"}
        | {name: round(statistics.median(told[name] for told in told_all[1:]), 3) for name in told_all[0]}
        for (mode, side), told_all in found.items()
    ]


def memory(bundle: Path, mode: str, processes: int) -> dict[str, Any]:
    """Megabytes of PSS of all processes together."""
    with ExitStack() as stack:
        opened = [stack.enter_context(Opened(bundle, mode, SIDES[0])) for _ in range(processes)]
        for one in opened:
            one.times()
        told = [one.memory() for one in opened]
    return {"mode": mode, "processes": processes} | {
        f"{name.lower()}_mb": round(sum(one[name] for one in told) / 1e6) for name in told[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the first embedding, and memory of several processes.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7, help="timed processes of each way, after one that warms up")
    parser.add_argument("--processes", type=int, default=3, help="processes that share a bundle")
    add_out(parser)
    args = parser.parse_args()
    rows = times(args.bundle, args.rounds)
    shared = [memory(args.bundle, mode, count) for mode in MODES for count in (1, args.processes)]
    result = {
        "benchmark": "edge_start",
        "bundle_mb": round(sum(path.stat().st_size for path in args.bundle.iterdir()) / 1e6),
        "machine": machine(),
        "libraries": {name: version(name) for name in ("onnxruntime", "numpy")},
        "rows": rows,
        "shared": shared,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
