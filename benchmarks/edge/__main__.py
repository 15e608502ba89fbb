"""The tower on a CPU, every precision of ours against the engines people use, interleaved: `make bench-edge`.

Weights are random with loud channels, of the 2B tower's shape. A peer counts as equal where its mean cosine against fp32
is at least 0.999 on every level. The last line is JSON.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.edge import weights
from benchmarks.edge.driver import SIZES, Worker, measure
from benchmarks.edge.engines import ENGINES, REFERENCE
from benchmarks.edge.peaks import peaks
from benchmarks.edge.plots import draw
from benchmarks.encode import machine
from edge_runtime import kernels
from export.packs import flop
from export.tower import Tower

MIN_COSINE = 0.999
VERSIONS = ("onnxruntime", "openvino", "nncf", "torch", "transformers")


def operand(name: str) -> str:
    """The type whose peak an engine is held against."""
    return "int8" if "int8" in name else "bf16" if "bf16" in name else "fp32"


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How many times faster int8 is than the fastest equal peer, its accuracy, and OpenVINO's calibrated int8 beside it."""
    found: dict[str, Any] = {}
    for size in SIZES:
        timed = {name: row[size] for name, row in rows.items() if "wall_ms" in row.get(size, {})}
        if "ours int8" not in timed:
            continue
        mine = timed["ours int8"]
        peers = [n for n in timed if not n.startswith("ours") and timed[n]["cosine"]["mean"] >= MIN_COSINE]
        best = min(peers, key=lambda name: timed[name]["wall_ms"])
        found[f"best_peer_{size}"] = best
        found[f"int8_vs_best_peer_{size}"] = round(timed[best]["wall_ms"] / mine["wall_ms"], 2)
        found[f"int8_vs_best_peer_cpu_{size}"] = round(timed[best]["cpu_ms"] / mine["cpu_ms"], 2)
        if "OpenVINO int8" in timed:
            found[f"int8_vs_openvino_int8_{size}"] = round(timed["OpenVINO int8"]["wall_ms"] / mine["wall_ms"], 2)
        kept = found.setdefault("int8_cosine_outliers", {"mean": 1.0, "lowest": 1.0})
        found["int8_cosine_outliers"] = {key: min(kept[key], mine["cosine"][key]) for key in kept}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Our tower against other engines on this CPU.")
    parser.add_argument("--depth", type=int, default=24, help="layers of the tower")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60, help="no new round starts after this much measuring")
    parser.add_argument("--cache", type=Path, default=Path(".cache/edge"))
    parser.add_argument("--out", type=Path, help="folder for the JSON and the plots")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    config = json.loads((weights.checkpoint(args.cache, args.depth) / "config.json").read_text())
    tower = Tower.from_config(config)
    for precision in {"fp32", "fp16", "int8", "int4"} & {name.split()[1] for name in args.engines if "ours" in name}:
        weights.bundle(args.cache, args.depth, precision)
    limits = peaks(args.threads)
    print("peaks in GFLOP/s:", {name: round(value) for name, value in limits.items()}, flush=True)
    workers, engines = dict[str, Worker](), dict[str, Any]()
    try:
        for name in dict.fromkeys([REFERENCE, *args.engines]):
            worker = Worker(name, args.cache, args.depth, args.threads)
            engines[name] = worker.about
            print(f"{name:20} {json.dumps(worker.about)}", flush=True)
            if "error" not in worker.about:
                workers[name] = worker
        deadline = time.monotonic() + 60 * args.minutes
        rows = measure(workers, args.sizes, args.rounds, deadline)
    finally:
        for worker in workers.values():
            worker.close()
    for name, row in rows.items():
        for size, cell in row.items():
            if "wall_ms" in cell:
                speed = flop(tower, (SIZES[size],)) / cell["wall_ms"] / 1e6
                cell |= {"gflops": round(speed, 1), "share_of_peak": round(speed / limits[operand(name)], 3)}
        engines[name] = {key: round(value, 2) for key, value in engines[name].items()} | {"sizes": row}
    result = {
        "benchmark": "edge",
        "machine": machine(),
        "threads": args.threads,
        "depth": args.depth,
        "versions": {name: version(name) for name in VERSIONS},
        "load_average": os.getloadavg()[0],
        "peaks_gflops": {name: round(value, 1) for name, value in limits.items()},
        "tflop": {size: round(flop(tower, (SIZES[size],)) / 1e12, 3) for size in args.sizes},
        "engines": engines,
        "summary": summary(rows),
    }
    if args.out:
        words = machine().split(",")[0].lower().split()
        stem = "_".join(
            ["edge", *words, kernels.instructions() or "portable"]
        )  # one name of a processor has many sorts
        (args.out / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
        draw(result, args.out / f"{stem}.png")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
