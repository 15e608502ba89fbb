"""Writes the static graphs of a bundle: checks what the target takes, proves each graph, and lets the target's compiler
make its file."""

import tempfile
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
from export.integers.rotation import Rotation
from export.static import proof
from export.static.choice import StaticPlan
from export.static.graph import StaticWriter, write_static_graph
from export.static.grid import Grid
from export.static.pictures import GridPictures
from export.static.refusals import require_accepted
from export.targets.conversion import convert
from export.targets.environment import REQUIREMENTS

OWN = {name: version(name) for name in ("onnx", "onnxruntime")}
INTEGERS = ("a16w8", "int8")
GridFile = tuple[Grid, Path]
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

    def publish(self, work: Path, original: StaticOriginal, calibration: Sequence[GridPictures]) -> list[StaticGraph]:
        """Write, prove and compile the graphs; returns what the manifest says of them.

        Args:
            work: the unfinished bundle, which gets the files.
            calibration: the pictures at each grid that calibrate integers, and those on which the gate measures.

        Raises:
            BundleError: the target refuses something.
            ParityError: a graph misses its gate; the rows are then in the file `report`.
            MissingExtra, ToolchainError: the target's toolchain cannot be installed, or failed.
        """
        with tempfile.TemporaryDirectory(prefix="static-", dir=work.parent) as name:
            floats = Path(name) if self.plan.precision in self.plan.target.own_files else work
            graphs = self._written(floats, self.read)
            proven = self._proven(graphs, original)
            if self.plan.target.name in REQUIREMENTS:
                return self._converted(graphs, calibration, proven, Path(name), work)
        return [
            self._entry(grid, path.name, OWN, measured) for (grid, path), measured in zip(graphs, proven, strict=True)
        ]

    def _written(self, folder: Path, read: Read) -> list[GridFile]:
        """Write one graph a grid, and their weights, to `folder`."""
        plan, graphs = self.plan, list[GridFile]()
        with DataFile(folder / WEIGHTS) as data:
            for grid in plan.grids:
                path, forms = folder / f"static_{grid}.onnx", plan.target.forms
                write_static_graph(self.family, self.tower, read, self.image, grid, path, data, **forms)
                graphs.append((grid, path))
        for _, path in graphs:
            require_accepted(onnx.load(path, load_external_data=False), plan.target)
        return graphs

    def _proven(self, graphs: Sequence[GridFile], original: StaticOriginal) -> list[dict[str, Any]]:
        """Hold each graph against the original; returns the figures of each."""
        found = []
        for (grid, path), patches, answers in zip(graphs, original.patches, original.answers, strict=True):
            rows = proof.against_original(self.tower, grid, answers, proof.static_answers(path, patches))
            # Without the error function an exact gelu is an approximate one: no fp32 gate takes one for the other.
            gate = proof.GATES["fp32" if self.plan.target.has_erf else "fp16"]
            parity.require(rows, f"static {grid}", gate, self.report)
            largest = proof.largest_residual(path, self.tower, patches)
            self.note(line(f"{grid} onnx fp32", rows, largest))
            found.append(figures(rows, largest))
        return found

    def _converted(
        self,
        graphs: Sequence[GridFile],
        calibration: Sequence[GridPictures],
        proven: Sequence[dict[str, Any]],
        spare: Path,
        work: Path,
    ) -> list[StaticGraph]:
        """Let the target's toolchain answer pictures that calibrated nothing, and make its file where the device needs
        one. Integers stand behind the rotation, which takes the loud channels away and changes nothing else."""
        plan, found, sources = self.plan, list[StaticGraph](), list(graphs)
        if plan.precision in INTEGERS:
            rotated = spare / "rotated"
            rotated.mkdir()
            sources = self._written(rotated, Rotation(self.tower, self.read))
        for (grid, path), (_, source), pictures, before in zip(graphs, sources, calibration, proven, strict=True):
            calibrating = pictures.calibrating if plan.precision in INTEGERS else []
            first = len(calibrating)
            made = convert(
                plan.target.name,
                source,
                [*calibrating, *pictures.held_out],
                proof.output_names(self.tower),
                plan.precision,
                plan.chip,
                work,
                self.note,
                num_calibration=first,
            )
            label = f"{grid} {plan.target.name} {plan.precision}"
            expected = proof.static_answers(path, pictures.held_out)
            rows = proof.against_float(label, expected, made.answers[first:])
            self.note(line(label, rows, before["largest_residual"]))
            parity.require(rows, label, proof.GATES[plan.precision], self.report)
            taken = {"seconds": round(made.seconds, 1), "seconds_an_answer": round(made.seconds_an_answer, 2)}
            measured = figures(rows, before["largest_residual"]) | taken
            name = path.name if made.file is None else made.file.name
            found.append(self._entry(grid, name, made.toolchain, measured))
        return found

    def _entry(self, grid: Grid, file: str, toolchain: dict[str, str], measured: dict[str, Any]) -> StaticGraph:
        """What the manifest says of one file."""
        plan = self.plan
        return StaticGraph(
            grid.height, grid.width, plan.target.name, plan.precision, file, plan.chip, toolchain, measured
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
