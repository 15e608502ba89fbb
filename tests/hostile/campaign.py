"""The long part: `make campaign` fuzzes files and a real server, kills, fills and soaks it, each ending in one JSON line.

`python -m tests.hostile.campaign files|fuzz|chaos|load|soak`. Nothing here is judged by its time; what must never happen
(a crash, a hang, an INTERNAL, a wrong token of a neighbour, a leak of threads or descriptors) ends with code 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from tests.conftest import CHECKPOINT, run_module
from tests.engine import ENGINE
from tests.hostile.chaos import chaos
from tests.hostile.files import fuzz_in
from tests.hostile.fuzzing import fuzz
from tests.hostile.soak import soak
from tests.serving.reference import Reference

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SERVED: dict[str, Callable[[Reference, float, Path], dict[str, Any]]] = {"fuzz": fuzz, "chaos": chaos, "soak": soak}


def files(folder: Path, num_cases: int, seconds: float) -> dict[str, Any]:
    """The fuzz of files, over the bundled model."""
    run_module("export.vision", CHECKPOINT, folder / "bundle")
    run_module("export.language", CHECKPOINT, folder / "language", "--bundle", folder / "bundle")
    return fuzz_in(folder / "bundle", folder / "language", num_cases, seconds=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.campaign", description=__doc__)
    parser.add_argument("part", choices=("files", *SERVED))
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of files, fuzz and soak; chaos takes what it takes"
    )
    parser.add_argument("--cases", type=int, default=100_000, help="of files, where the time allows")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    part, facts = options.part, {"machine": machine()}
    stem = options.out / f"campaign_{part}"
    with tempfile.TemporaryDirectory() as folder:
        if part == "files":
            found = files(Path(folder), options.cases, options.minutes * 60)
        else:
            stem = stem.with_name(f"{stem.name}_{ENGINE}")
            facts |= {"engine": ENGINE} | ({} if part == "chaos" else {"minutes": options.minutes})
            found = SERVED[part](Reference(Path(folder)), options.minutes * 60, stem)
    line = json.dumps({"part": part} | facts | found)
    stem.with_suffix(".json").write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if found["is_sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
