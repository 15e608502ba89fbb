"""The tower that every engine runs: the 2B shape, random weights with loud channels, exported once and kept in .cache.

Loud channels are what makes integers hard in real towers and what random weights lack. Fewer layers of the same shape
make a run shorter; the result says how many there were.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from tests.export.outliers import make_loud

SMALL = Path("models/tiny")


def vision_config(depth: int) -> dict[str, Any]:
    """The 2B tower's configuration, with its deepstack levels moved into `depth` layers."""
    full = SHAPES["2b"]
    taps = full["deepstack_visual_indexes"] if depth == full["depth"] else [depth // 4, depth // 2, 3 * depth // 4]
    return full | {"depth": depth, "deepstack_visual_indexes": taps}


def checkpoint(cache: Path, depth: int) -> Path:
    """The folder of the checkpoint, written where it is missing."""
    folder = cache / f"checkpoint-{depth}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        SHAPES["edge"] = vision_config(depth)
        write_checkpoint(partial, SMALL, "edge", is_single=True)
        make_loud(partial, "mid")
        partial.rename(folder)
    return folder


def bundle(cache: Path, depth: int, precision: str) -> Path:
    """The bundle of a precision, through the same gates as any other.

    Raises:
        CalledProcessError: the export refused, and said why.
    """
    folder = cache / f"bundle-{depth}-{precision}"
    if not folder.is_dir():
        command = [sys.executable, "-m", "export.vision", checkpoint(cache, depth), folder, "--precision", precision]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder
