"""The long part: `make campaign` fuzzes files and a real server, kills, fills and soaks it, each ending in one JSON line.

`python -m tests.hostile.campaign files|fuzz|chaos|soak|kept`. Nothing here is judged by its time; what must never happen
(a crash, a hang, an INTERNAL, a wrong token of a neighbour, a leak of threads or descriptors) ends with code 1.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from tests.conftest import CHECKPOINT
from tests.engine import ENGINE
from tests.hostile.chaos import FROZEN, PLACES, VICTIMS, chaos
from tests.hostile.files import added, fuzz_in
from tests.hostile.fuzzing import fuzz
from tests.hostile.kept import kept
from tests.hostile.soak import soak
from tests.hostile.targets import EXPORTED, REFERENCES, exported, target
from tests.serving.reference import Reference

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SERVED = ("fuzz", "chaos", "soak", "kept")


def files(folder: Path, num_cases: int, seconds: float) -> dict[str, Any]:
    """The fuzz of files, over the bundled model, in a process a processor."""
    bundle, language = exported(CHECKPOINT, folder)
    num_processes = os.cpu_count() or 1
    share = -(-num_cases // num_processes)
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        asked = [pool.submit(fuzz_in, bundle, language, share, seconds=seconds) for _ in range(num_processes)]
        return added([one.result() for one in asked])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.campaign", description=__doc__)
    parser.add_argument("part", choices=("files", *SERVED))
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of files, fuzz and soak; chaos takes what it takes"
    )
    parser.add_argument(
        "--cases", type=int, default=100_000, help="of files, and requests of fuzz, where the time allows"
    )
    parser.add_argument(
        "--model",
        choices=(*REFERENCES, *EXPORTED),
        default="reference",
        help=f"of fuzz: what is served; a gateway stands before {' and '.join(EXPORTED)}",
    )
    parser.add_argument("--rate", type=float, help="the most hostile requests a second of soak; no bound by default")
    parser.add_argument("--requests", type=int, default=2000, help="of kept: of each kind")
    parser.add_argument("--kind", help="of kept: the one kind to ask")
    parser.add_argument("--victims", nargs="+", choices=(*VICTIMS, FROZEN, PLACES), default=(), help="of chaos")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    part, facts = options.part, {"machine": machine()}
    stem = options.out / f"campaign_{part}"
    with tempfile.TemporaryDirectory() as folder:
        if part == "files":
            found = files(Path(folder), options.cases, options.minutes * 60)
        else:
            model = f"_{options.model}" if part == "fuzz" and options.model != "reference" else ""
            stem = stem.with_name(f"{stem.name}_{ENGINE}{model}")
            facts |= {"engine": ENGINE} | ({"minutes": options.minutes} if part in ("fuzz", "soak") else {})
            place = Path(folder)
            run: dict[str, Callable[[], dict[str, Any]]] = {
                "fuzz": lambda: (
                    {"model": options.model} | fuzz(target(options.model, place), options.cases, options.minutes * 60)
                ),
                "chaos": lambda: chaos(Reference(place), options.victims),
                "soak": lambda: soak(Reference(place), options.minutes * 60, stem, options.rate),
                "kept": lambda: kept(Reference(place), options.requests, options.kind),
            }
            found = run[part]()
    line = json.dumps({"part": part} | facts | found)
    stem.with_suffix(".json").write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if found["is_sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
