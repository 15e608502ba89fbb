"""`make bench-edge`: the tower on a CPU, every precision of ours against the engines that people use, in turns.

Weights are random with loud channels, of the 2B tower's shape. It writes a table, JSON and plots, named by processor
and instructions; the last line is JSON.
"""

import argparse
import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.edge import in_flight, preparation, weights
from benchmarks.edge.driver import Worker, measure
from benchmarks.edge.engines import ENGINES, REFERENCE, native_engines
from benchmarks.edge.llama.build import REQUIREMENT
from benchmarks.edge.peaks import peaks
from benchmarks.edge.plots import draw
from benchmarks.edge.sizes import SIZES
from benchmarks.edge.summary import OURS, summary
from benchmarks.edge.table import table
from benchmarks.machine import machine
from edge_runtime.tower import kernels
from export.gate.packs import flop

VERSIONS = ("onnxruntime", "openvino", "nncf", "torch", "transformers")
FLIGHT_SIZE = "512"


def start(names: list[str], cache: Path, depth: int, threads: int) -> tuple[dict[str, Worker], dict[str, Any]]:
    """Start the workers; returns those that have an engine, and what each engine says of itself."""
    workers, engines = dict[str, Worker](), dict[str, Any]()
    for name in names:
        worker = Worker(name, cache, depth, threads)
        engines[name] = {"settings": ENGINES[name].settings} | worker.about
        print(f"{name:20} {json.dumps(worker.about)}", flush=True)
        if "error" not in worker.about:
            workers[name] = worker
    return workers, engines


def add_speeds(rows: dict[str, dict[str, Any]], tflop: dict[str, float], limits: dict[str, float]) -> None:
    """Add gflops and share_of_peak to every cell that has a time."""
    for name, row in rows.items():
        for size, cell in row.items():
            if "wall_ms" in cell:
                speed = 1e6 * tflop[size] / cell["wall_ms"]
                cell |= {"gflops": round(speed, 1), "share_of_peak": round(speed / limits[ENGINES[name].operand], 3)}


def write(result: dict[str, Any], folder: Path) -> None:
    words = re.sub(r"\((r|tm)\)|[^a-z0-9. ]", "", machine().split(",")[0].lower()).split()
    stem = "_".join(["edge", *words, kernels.instructions() or "portable"])  # one name of a processor has many sorts
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{stem}.md").write_text(table(result))
    draw(result, folder / f"{stem}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Our tower against other engines on this CPU.")
    parser.add_argument("--depth", type=int, default=24, help="layers of the tower")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=native_engines(), metavar="NAME")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="most timed calls of an engine and a size")
    parser.add_argument(
        "--minutes", type=float, default=25, help="of measuring; every size gets its share, and two rounds"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache/edge"))
    parser.add_argument("--out", type=Path, help="folder for the JSON, the table and the plots")
    args = parser.parse_args()
    for folder in filter(None, (args.cache, args.out)):
        folder.mkdir(parents=True, exist_ok=True)
    weights.write_checkpoint(args.cache, args.depth)
    before = peaks(args.threads)
    print("peaks in GFLOP/s, and GB/s:", {name: round(value) for name, value in before.items()}, flush=True)
    names = list(dict.fromkeys([REFERENCE, *args.engines]))
    workers, engines = start(names, args.cache, args.depth, args.threads)
    try:
        rows = measure(workers, args.sizes, args.rounds, 60 * args.minutes)
    finally:
        for worker in workers.values():
            worker.close()
    after = peaks(args.threads)
    limits = {
        name: max(value, after[name]) for name, value in before.items()
    }  # whatever else ran, ran at one of them less
    memory = limits.pop("memory")
    tower = weights.tower(args.cache, args.depth)
    tflop = {size: round(flop(tower, (SIZES[size],)) / 1e12, 4) for size in args.sizes}
    add_speeds(rows, tflop, limits)
    result = {
        "benchmark": "edge",
        "machine": machine(),
        "threads": args.threads,
        "depth": args.depth,
        "versions": {name: version(name) for name in VERSIONS} | {"llama.cpp": REQUIREMENT},
        "load_average": round(os.getloadavg()[0], 2),
        "peaks_gflops": {name: round(value, 1) for name, value in limits.items()},
        "memory_gb_per_s": round(memory, 1),
        "tflop": tflop,
        "engines": {name: engine | {"sizes": rows.get(name, {})} for name, engine in engines.items()},
        "summary": summary(rows),
    }
    if "wall_ms" in (cell := rows.get(OURS, {}).get(FLIGHT_SIZE, {})):
        bundle = weights.bundle_folder(args.cache, args.depth, "int8")
        result["preparation"] = preparation.measure(bundle, cell["wall_ms"])
        result["in_flight"] = in_flight.measure(OURS, args.cache, args.depth, FLIGHT_SIZE, args.threads, args.rounds)
    if args.out:
        write(result, args.out)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
