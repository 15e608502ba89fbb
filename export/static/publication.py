"""Writes the static graphs of a bundle: checks what the target takes, proves each graph, and lets the target's compiler
make its file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from contract.preprocessing import ImageProcessing
from contract.static_graph import WEIGHTS, StaticGraph
from export.gate import parity
from export.gate.oracle import Outputs
from export.gate.parity import Row
from export.graph.data_file import DataFile
from export.graph.tower import Read, Tower
from export.static import proof
from export.static.choice import StaticPlan
from export.static.graph import StaticWriter, write_static_graph
from export.static.grid import Grid
from export.static.refusals import require_accepted

HEADER = f"{'static graph':<28} {'1 - cosine':>11} {'1 - centred':>11} {'worst row':>10} {'largest':>9}  worst output"


@dataclass(frozen=True)
class StaticOriginal:
    """A picture's patches uint8 (num_patches, patch_width) at each grid, and what transformers' tower answers."""

    patches: list[list[NDArray[np.uint8]]]
    answers: list[list[Outputs]]


@dataclass(frozen=True)
class Writer:
    """Writes and proves the static graphs of one tower.

    Attributes:
        read: gives a tower tensor by its tower-local name, float32.
        note: takes a line for the user.
        report: where the rows go when a graph misses its gate.
    """

    family: StaticWriter
    tower: Tower
    read: Read
    image: ImageProcessing
    plan: StaticPlan
    note: Callable[[str], None]
    report: Path

    def write(self, folder: Path, read: Read | None = None) -> list[Path]:
        """Write one graph a grid, and their weights, to `folder`; returns the graphs.

        Raises:
            BundleError: the target refuses something.
        """
        paths = []
        with DataFile(folder / WEIGHTS) as data:
            for grid in self.plan.grids:
                path = folder / f"static_{grid}.onnx"
                source, has_erf = read or self.read, self.plan.target.has_erf
                write_static_graph(self.family, self.tower, source, self.image, grid, path, data, has_erf=has_erf)
                paths.append(path)
        for path in paths:
            require_accepted(onnx.load(path, load_external_data=False), self.plan.target)
        return paths

    def publish(self, work: Path, original: StaticOriginal) -> list[StaticGraph]:
        """Write, prove and compile the graphs; returns what the manifest says of them.

        Raises:
            BundleError: the target refuses something.
            ParityError: a graph misses its gate; the rows are then in the file `report`.
        """
        found = []
        for path, grid, patches, answers in zip(
            self.write(work), self.plan.grids, original.patches, original.answers, strict=True
        ):
            got = proof.static_answers(path, patches)
            rows = proof.against_original(self.tower, grid, answers, got)
            # Without the error function an exact gelu is an approximate one: no fp32 tower passes as such.
            gate = proof.GATES["fp32" if self.plan.target.has_erf else "fp16"]
            parity.require(rows, f"static {grid}", gate, self.report)
            largest = proof.largest_residual(path, self.tower, patches)
            self.note(line(f"{grid} {self.plan.target.name} fp32", rows, largest))
            toolchain = {name: version(name) for name in ("onnx", "onnxruntime")}
            found.append(self.entry(grid, "fp32", path, toolchain, figures(rows, largest)))
        return found

    def entry(
        self, grid: Grid, precision: str, path: Path, toolchain: dict[str, str], measured: dict[str, Any]
    ) -> StaticGraph:
        """What the manifest says of one file."""
        plan = self.plan
        return StaticGraph(
            grid.height, grid.width, plan.target.name, precision, path.name, plan.chip, toolchain, measured
        )


def figures(rows: Sequence[Row], largest: float) -> dict[str, Any]:
    """The worst figures of some rows for a manifest; `largest` is the largest residual."""
    worst = parity.summary(list(rows))
    names = ("max_relative_error", "mean_cosine", "min_cosine", "centred_mean_cosine", "centred_min_cosine")
    return {name: worst[name] for name in names} | {"largest_residual": round(largest, 3)}


def line(label: str, rows: Sequence[Row], largest: float) -> str:
    """The line of one graph under HEADER."""
    worst = parity.summary(list(rows))

    def lost(name: str) -> str:
        return "-" if worst[name] is None else f"{max(0.0, 1 - worst[name]):.2e}"

    output = min(rows, key=lambda row: row.centred_mean_cosine or 0.0).output
    return (
        f"{label:<28} {lost('mean_cosine'):>11} {lost('centred_mean_cosine'):>11} {lost('centred_min_cosine'):>10} "
        f"{largest:>9.3g}  {output}"
    )
