"""`python -m benchmarks.edge.prepare` makes what an engine needs on disk, in a process that then ends."""

import sys
from pathlib import Path

from benchmarks.edge.engines import ENGINES


def main() -> None:
    ENGINES[sys.argv[1]].prepare(Path(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    main()
