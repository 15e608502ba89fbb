"""Steps the workers in turn, so that whatever else the machine does falls on all of them alike."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.edge.engines import REFERENCE

SIZES = {
    "256": (1, 16, 16),
    "512": (1, 32, 32),
    "1024": (1, 64, 64),
    "768": (1, 48, 48),
    "video": (8, 16, 16),  # 16 frames of 256 x 256
}


class Worker:
    """An engine in its own process.

    Attributes:
        about: load_s, file_mb, rss_mib; or error, why there is no engine.
    """

    def __init__(self, name: str, cache: Path, depth: int, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.edge.worker", name, str(cache), str(depth), str(threads)]
        pipe = subprocess.PIPE
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        self.about = self._read()

    def run(self, size: str, path: Path | None = None) -> dict[str, Any]:
        """wall_s, cpu_s, peak_mib of one item; the embeddings go to `path`."""
        assert self._process.stdin is not None
        print(json.dumps([size, SIZES[size], path and str(path)]), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            values: dict[str, Any] = json.loads(line)
            return values
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["no word"]
        return {"error": lines[-1][:300]}


def cosines(expected: Path, found: Path) -> dict[str, Any]:
    """Mean and lowest cosine of the rows, per level; level 0 is the main output."""
    pairs = zip(np.load(expected).astype(np.float64), np.load(found).astype(np.float64), strict=True)
    of_rows = [(a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1) for a, b in pairs]
    levels = [{"mean": round(float(c.mean()), 6), "lowest": round(float(c.min()), 6)} for c in of_rows]
    return {"levels": levels, "mean": min(c["mean"] for c in levels), "lowest": min(c["lowest"] for c in levels)}


def measure(workers: dict[str, Worker], sizes: list[str], rounds: int, deadline: float) -> dict[str, dict[str, Any]]:
    """Per engine and size: wall_ms, cpu_ms (medians), num_runs, peak_mib, cosine.

    The first call of a size warms up and is compared, and is timed no more. No round starts after `deadline`
    (time.monotonic), except the first of a size that was warmed up.
    """
    rows: dict[str, dict[str, Any]] = {name: {} for name in workers}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            if time.monotonic() > deadline:
                break
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
            for name, worker in workers.items():
                path = Path(folder) / f"{name}.npy"
                rows[name][size] = worker.run(size, path)
                if "error" not in rows[name][size]:
                    rows[name][size] = {"cosine": cosines(Path(folder) / f"{REFERENCE}.npy", path)}
            for number in range(rounds):
                if number and time.monotonic() > deadline:
                    break
                for name, worker in workers.items():
                    if "error" not in rows[name][size]:
                        runs[name].append(worker.run(size))
            for name, found in runs.items():
                if found:
                    rows[name][size] |= {
                        "wall_ms": round(1e3 * median(run["wall_s"] for run in found), 1),
                        "cpu_ms": round(1e3 * median(run["cpu_s"] for run in found), 1),
                        "num_runs": len(found),
                        "peak_mib": round(found[-1]["peak_mib"]),
                    }
                    print(f"{size:>6} {name:20} {json.dumps(rows[name][size])[:170]}", flush=True)
    return rows
