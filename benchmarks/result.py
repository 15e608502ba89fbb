"""How a benchmark ends: its figures as one JSON line, and the same figures in a file."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option for the file."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON here")


def finish(result: Mapping[str, Any], out: Path | None) -> None:
    """Write the figures to the file, where there is one, and print them as one line."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
