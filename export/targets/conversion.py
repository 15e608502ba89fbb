"""Runs a vendor's toolchain on one graph, in its own environment and in a process of its own: one of them ends its
process without an exception, and another one writes what went wrong to a log only.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import EdgeVlmError
from edge_runtime.tower.still import still_rows
from export.targets.environment import python_for

WORKERS = Path(__file__).parent / "workers"
LAST_WORDS = 80  # of what the toolchain wrote, in an error


class ToolchainError(EdgeVlmError, RuntimeError):
    """A vendor's toolchain failed on a graph that its list of operators allows."""


@dataclass(frozen=True)
class Converted:
    """What a toolchain made of a graph.

    Attributes:
        file: its file for the device; None where the device takes the ONNX graph itself.
        answers: the outputs (1, rows, H) for each picture, from the toolchain's emulator, simulator or processor.
        toolchain: its packages, name to version.
        seconds: how long it took until it could answer: file and compilation.
        seconds_an_answer: how long each picture took.
    """

    file: Path | None
    answers: list[list[NDArray[np.float32]]]
    toolchain: dict[str, str]
    seconds: float
    seconds_an_answer: float


def convert(
    target: str,
    graph: Path,
    pictures: Sequence[NDArray[np.uint8]],
    outputs: Sequence[str],
    precision: str,
    chip: str,
    folder: Path,
    note: Callable[[str], None],
    num_calibration: int | None = None,
) -> Converted:
    """Let a target's toolchain convert a graph and answer pictures.

    Args:
        target: a key of environment.REQUIREMENTS.
        graph: float32, as export.static.graph writes it.
        pictures: patches uint8 (num_patches, patch_width) of each picture.
        outputs: the graph's outputs.
        folder: takes the toolchain's file.
        note: takes a line for the user.
        num_calibration: how many pictures, the first ones, calibrate integers; None takes all.

    Raises:
        MissingExtra: the toolchain cannot be installed.
        ToolchainError: it failed.
    """
    python = python_for(target, note)
    with tempfile.TemporaryDirectory(prefix="edge-vlm-target-") as name:
        place = Path(name)
        arrays: dict[str, Any] = {f"p{i}": still_rows(one) for i, one in enumerate(pictures)}
        np.savez(place / "pictures.npz", **arrays)
        job = {
            "graph": str(graph),
            "pictures": str(place / "pictures.npz"),
            "outputs": list(outputs),
            "precision": precision,
            "chip": chip,
            "packages": str(distribution("torch").locate_file("")),  # for a toolchain that needs torch
            "num_calibration": len(pictures) if num_calibration is None else num_calibration,
            "file": str(folder / f"{graph.stem}.{target}"),
            "answers": str(place / "answers.npz"),
            "result": str(place / "result.json"),
        }
        (place / "job.json").write_text(json.dumps(job))
        result = _result(python, target, place, job)
        with np.load(place / "answers.npz") as held:
            answers = [
                [np.asarray(held[f"a{picture}_{output}"], np.float32) for output in range(len(outputs))]
                for picture in range(len(pictures))
            ]
    file = None if result["file"] is None else Path(result["file"])
    return Converted(file, answers, result["toolchain"], result["seconds"], result["answering"] / len(pictures))


def _result(python: Path, target: str, place: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What the worker wrote; a worker that wrote nothing has failed, whatever its exit code."""
    done = subprocess.run(
        [str(python), str(WORKERS / f"{target}_worker.py"), str(place / "job.json")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=place,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(Path(job["result"]).read_text())
    except (OSError, ValueError) as error:
        last = " ".join(done.stdout.split()[-LAST_WORDS:])
        raise ToolchainError(
            f"the toolchain of {target} failed on {Path(job['graph']).name} in {job['precision']} (exit code {done.returncode}): "
            f"{last or 'it wrote nothing'}. Try another --target-precision, or export without --target and report this"
        ) from error
    return found
