"""The tower that every engine runs: the 2B shape, random weights with loud channels, one export that stays in .cache.

Loud channels make integers hard in real towers, and plain random weights have none. Fewer layers of the same shape
make a run shorter; the result says how many there were. Engines look for the folders; only the functions that write
need torch.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from export import families
from export.graph.tower import Tower

SMALL = Path("models/tiny")


def checkpoint(cache: Path, depth: int) -> Path:
    return cache / f"checkpoint-{depth}"


def bundle_folder(cache: Path, depth: int, variant: str) -> Path:
    """The bundle of a variant: a precision, and perhaps a word that says how the encoder runs it."""
    return cache / f"bundle-{depth}-{variant.split()[0]}"


def tower(cache: Path, depth: int) -> Tower:
    """The shape of a written checkpoint."""
    return families.tower(json.loads((checkpoint(cache, depth) / "config.json").read_text()))


def vision_config(full: dict[str, Any], depth: int) -> dict[str, Any]:
    """A tower's configuration with its deepstack levels moved into `depth` layers."""
    taps = full["deepstack_visual_indexes"] if depth == full["depth"] else [depth // 4, depth // 2, 3 * depth // 4]
    return full | {"depth": depth, "deepstack_visual_indexes": taps}


def write_checkpoint(cache: Path, depth: int) -> None:
    """Write the checkpoint where it is missing."""
    from benchmarks import random_checkpoint
    from tests.export.outliers import make_loud

    folder = checkpoint(cache, depth)
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        random_checkpoint.SHAPES["edge"] = vision_config(random_checkpoint.SHAPES["2b"], depth)
        random_checkpoint.write_checkpoint(partial, SMALL, "edge", is_single=True)
        make_loud(partial, "mid")
        partial.rename(folder)


def prepare(cache: Path, depth: int, variant: str) -> None:
    """Export the bundle of a variant where it is missing, through the same gates as any other bundle.

    Raises:
        CalledProcessError: the export refused the tower, and printed why.
    """
    folder = bundle_folder(cache, depth, variant)
    if not folder.is_dir():
        command: list[str | Path] = [sys.executable, "-m", "export.vision", checkpoint(cache, depth), folder]
        subprocess.run([*command, "--precision", variant.split()[0]], check=True)
