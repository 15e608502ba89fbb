"""The long part: `make campaign` fuzzes, kills and soaks a real server, each ending in one JSON line of benchmarks/results/.

`python -m tests.hostile.campaign fuzz|chaos|soak --minutes N`. Nothing here is judged by its time; what must never
happen (a crash, a hang, an INTERNAL, a wrong token of a neighbour, a leak of threads or descriptors) ends with code 1.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from tests.hostile.chaos import chaos
from tests.hostile.fuzzing import fuzz
from tests.hostile.soak import soak
from tests.serving.reference import Reference

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PARTS = {"fuzz": fuzz, "chaos": chaos, "soak": soak}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.campaign", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--minutes", type=float, default=60.0, help="of fuzz and soak; chaos takes what it takes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(Path(folder))
        found: dict[str, Any] = PARTS[options.part](reference, options.minutes * 60, options.out)
    how_long = {} if options.part == "chaos" else {"minutes": options.minutes}
    line = json.dumps({"part": options.part, "machine": machine()} | how_long | found)
    (options.out / f"campaign_{options.part}.json").write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if found["is_sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
