"""Pictures a second on 1, 2, 4, ... threads, of two sessions, and of several pictures a call: `python -m benchmarks.edge_callers`.

It says what a service gains that puts the pictures of several callers into one call, or gives each caller a session of
its own, beside one picture at a time on all cores. All ways run in this process, in turns; figures are medians of the
rounds. The last line is JSON.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime import Bundle, Encoder
from edge_runtime.items.item import Item

SIDES = (256, 512)
PICTURES = 4  # of each call or turn
ALONE = "one at a time"


def pictures(side: int) -> list[Item]:
    """Four pictures of noise of `side` pixels, as the tower takes them."""
    random, patches = np.random.default_rng(0), side // 16
    shape = (patches * patches, 16 * 16 * 3 * 2)
    return [Item(random.integers(0, 256, shape, np.uint8), (1, patches, patches)) for _ in range(PICTURES)]


def one_by_one(encoder: Encoder, items: list[Item]) -> None:
    for item in items:
        encoder.encode([item])


def at_once(encoders: list[Encoder], items: list[Item]) -> None:
    """Each encoder takes its share of the pictures, on a thread of its own."""
    with ThreadPoolExecutor(len(encoders)) as pool:
        shares = [items[first :: len(encoders)] for first in range(len(encoders))]
        for done in [pool.submit(one_by_one, *pair) for pair in zip(encoders, shares, strict=True)]:
            done.result()


def ways(bundle: Bundle, cores: int) -> dict[str, Callable[[list[Item]], object]]:
    """Every way to encode pictures, by its name."""
    counts = sorted({cores, *(1 << bit for bit in range(cores.bit_length()))})
    by_threads = {count: Encoder.from_bundle(bundle, threads=count) for count in counts}
    whole, found = by_threads[cores], dict[str, Callable[[list[Item]], object]]()
    for count, encoder in by_threads.items():
        name = ALONE if count == cores else f"one at a time, {count} threads"
        found[name] = partial(one_by_one, encoder)
    found[f"{PICTURES} a call"] = whole.encode
    found["two callers, one session"] = partial(at_once, [whole, whole])
    if cores > 1:
        halves = [Encoder.from_bundle(bundle, threads=cores // 2) for _ in range(2)]
        found[f"two sessions of {cores // 2} threads"] = partial(at_once, halves)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures a second by threads, sessions and pictures a call.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7, help="timed turns of each way, after one that warms up")
    add_out(parser)
    args = parser.parse_args()
    cores, bundle = len(os.sched_getaffinity(0)), Bundle.load(args.bundle)
    known, rows = ways(bundle, cores), list[dict[str, Any]]()
    for side in SIDES:
        items = pictures(side)
        seconds: dict[str, list[float]] = {name: [] for name in known}
        for _ in range(args.rounds + 1):
            for name, encode in known.items():
                begun = time.perf_counter()
                encode(items)
                seconds[name].append(time.perf_counter() - begun)
        for name, taken in seconds.items():
            ratios = [alone / own for alone, own in zip(seconds[ALONE][1:], taken[1:], strict=True)]
            rate = PICTURES / statistics.median(taken[1:])
            rows.append({"picture": f"{side}x{side}", "way": name, "pictures_s": round(rate, 2), "to_one_at_a_time": round(statistics.median(ratios), 3)})  # fmt: skip
    result = {
        "benchmark": "edge_callers",
        "machine": machine(),
        "precision": bundle.manifest.precision,
        "rounds": args.rounds,
        "libraries": {name: version(name) for name in ("onnxruntime", "numpy")},
        "rows": rows,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
