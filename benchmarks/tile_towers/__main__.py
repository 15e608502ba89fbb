"""`python -m benchmarks.tile_towers`: towers of tile families on this CPU, ours against other engines, in turns.

CLIP L/14-336 (LLaVA-1.5's tower and connector, one tile and five) and InternViT-300M (InternVL's, thirteen tiles), with
random weights. `make bench-edge` runs it after the tower of Qwen3-VL, in the environment of the peers. Every engine
answers the same tiles; the cosine is against transformers in float32, and a peer counts where its mean is at least 0.999.
Our graphs are those that the export writes, before its gate: the cosine stands in the gate's place. The order of the
engines changes from round to round, and a pause lets the threads of the one before fall asleep: onnxruntime's stay awake
for 50 ms. The last line is JSON.
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.edge.peaks import peaks
from benchmarks.edge.summary import MIN_COSINE
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from benchmarks.tile_towers.engines import NAMES, REFERENCE, Engine, engines
from benchmarks.tile_towers.tiles import CASES, Rows

DEPTH = 24
OPERANDS = {"fp32": "fp32", "fp16": "fp32", "bf16": "bf16", "int8": "int8"}
PAUSE_S = 0.2


def cosine(found: Rows, expected: Rows) -> dict[str, float]:
    pairs = found.astype(np.float64), expected.astype(np.float64)
    of_rows = (pairs[0] * pairs[1]).sum(1) / np.linalg.norm(pairs[0], axis=1) / np.linalg.norm(pairs[1], axis=1)
    return {"mean": round(float(of_rows.mean()), 6), "lowest": round(float(of_rows.min()), 6)}


def measure(found: Mapping[str, Engine], count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """By engine: cosine against REFERENCE, and the median ms of the rounds; one call warms up."""
    expected = found[REFERENCE](count)
    rows: dict[str, dict[str, Any]] = {name: {"cosine": cosine(run(count), expected)} for name, run in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    names = list(found)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            found[name](count)
            times[name].append(time.perf_counter() - started)
    for name, seconds in times.items():
        rows[name]["wall_ms"] = round(1e3 * statistics.median(seconds), 1)
    return rows


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The best peer of at least MIN_COSINE, how many times faster int8 is, and fp32 beside OpenVINO's, where
    these engines ran."""
    peers = [name for name in rows if not name.startswith("ours") and rows[name]["cosine"]["mean"] >= MIN_COSINE]
    best = min(peers, key=lambda name: rows[name]["wall_ms"])
    ratios = {"int8_vs_best_peer": (best, "ours int8"), "fp32_vs_openvino_fp32": ("OpenVINO fp32", "ours fp32")}
    return {"best_peer": best} | {
        ratio: round(rows[peer]["wall_ms"] / rows[ours]["wall_ms"], 2)
        for ratio, (peer, ours) in ratios.items()
        if peer in rows and ours in rows
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Towers of tile families against other engines on this CPU.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--depth", type=int, default=DEPTH, help="layers of the towers")
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME",
                        help="beside transformers fp32; InternViT with all of them takes more than 24 GB")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path(".cache/tile-towers"))
    add_out(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    limits, towers = peaks(args.threads), dict[str, Any]()
    for name in args.cases:
        case = CASES[name]
        folder = args.cache / f"{case.family}-{args.depth}"
        folder.mkdir(parents=True, exist_ok=True)
        tiles, found = engines(folder, case, args.depth, args.threads, args.engines)
        for count in case.counts:
            rows = measure(found, count, args.rounds)
            for engine, row in rows.items():
                gflops = 1e6 * tiles.tflop(count) / row["wall_ms"]
                operand = OPERANDS.get(engine.split()[-1], "fp32")
                row |= {"gflops": round(gflops, 1), "share_of_peak": round(gflops / limits[operand], 3)}
                print(f"{name}, {count} tiles  {engine:20} {row}", flush=True)
            towers[f"{name}, {count} tiles"] = {
                "tflop": round(tiles.tflop(count), 4), "engines": rows, "summary": summary(rows),
            }  # fmt: skip
    result = {
        "benchmark": "tile_towers",
        "machine": machine(),
        "threads": args.threads,
        "depth": args.depth,
        "versions": {name: version(name) for name in ("onnxruntime", "openvino", "nncf", "torch", "transformers")},
        "load_average": round(os.getloadavg()[0], 2),
        "peaks_gflops": {name: round(value, 1) for name, value in limits.items() if name != "memory"},
        "towers": towers,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
