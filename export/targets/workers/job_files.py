"""The files between the export and a worker: the job and its pictures, the answers and the result.

A worker's folder is the first on Python's path, so a worker imports this file by its bare name.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def read_job() -> tuple[dict[str, Any], list[Any]]:
    """The job as export.targets.conversion writes it, and its pictures, float32 (1, num_patches, width)."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with np.load(job["pictures"]) as held:
        return job, [held[f"p{i}"] for i in range(len(held.files))]


def answer_all(
    job: dict[str, Any],
    pictures: Sequence[Any],
    started: float,
    file: str | None,
    answer: Callable[[Any], Sequence[Any]],
    packages: Sequence[str],
) -> None:
    """Answer every picture, then write the answers and the result.

    Args:
        started: when the conversion began, by time.monotonic.
        file: what the toolchain made for the device; None where the device takes the ONNX graph itself.
        answer: gives the rows of each of the job's outputs, in their order, for one picture.
        packages: the names of the toolchain's packages.
    """
    ready = time.monotonic()
    answers: dict[str, Any] = {}
    for number, picture in enumerate(pictures):
        for place, rows in enumerate(answer(picture)):
            answers[f"a{number}_{place}"] = rows
    answering = time.monotonic() - ready
    np.savez(job["answers"], **answers)
    toolchain = {name: version(name) for name in packages}
    result = {"file": file, "toolchain": toolchain, "seconds": ready - started, "answering": answering}
    Path(job["result"]).write_text(json.dumps(result))
