"""Steps the workers in turn, so that whatever else the machine does falls on all of them alike."""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.edge.engines import ENGINES, REFERENCE
from benchmarks.edge.sizes import SIZES

MIN_ROUNDS = 2
SETTLING_S = 10  # in so long a call, what the others left in caches and clocks does not count


class Worker:
    """An engine in its own process; another process makes its files before.

    Attributes:
        about: load_s, file_mb, rss_mib; or error, the reason why there is no engine, or none any more.
    """

    def __init__(self, name: str, cache: Path, depth: int, threads: int) -> None:
        python, pipe, arguments = [sys.executable, "-m"], subprocess.PIPE, [name, str(cache), str(depth)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the worker
        self._process: subprocess.Popen[str] | None = None
        if ENGINES[name].files:
            prepare = [*python, "benchmarks.edge.prepare", *arguments]
            if code := subprocess.run(prepare, stdout=self._log, stderr=self._log).returncode:
                self.about = self._error(code)
                return
        worker = [*python, "benchmarks.edge.worker", *arguments, str(threads)]
        self._process = subprocess.Popen(worker, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        self.about = self._read(self._process)

    def run(self, size: str, path: Path | None = None) -> dict[str, Any]:
        """Encode one item and save its embeddings to `path`; returns wall_s, cpu_s and peak_mib, or error."""
        if "error" in self.about or self._process is None:
            return self.about
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the worker has died; its output says why
            print(json.dumps([size, SIZES[size], path and str(path)]), file=self._process.stdin, flush=True)
        answer = self._read(self._process)
        if "error" in answer:
            self.about = answer
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        if line := process.stdout.readline():
            values: dict[str, Any] = json.loads(line)
            return values
        return self._error(process.wait())

    def _error(self, code: int) -> dict[str, Any]:
        """The last line of the log."""
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["no word"]
        return {"error": f"{lines[-1][:300]} (exit code {code})"}


def cosines(expected: Path, found: Path) -> dict[str, Any]:
    """Mean and lowest cosine of the rows, per level; level 0 is the main output."""
    pairs = zip(np.load(expected).astype(np.float64), np.load(found).astype(np.float64), strict=True)
    of_rows = [(a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1) for a, b in pairs]
    levels = [{"mean": round(float(c.mean()), 6), "lowest": round(float(c.min()), 6)} for c in of_rows]
    return {"levels": levels, "mean": min(c["mean"] for c in levels), "lowest": min(c["lowest"] for c in levels)}


def measure_size(workers: dict[str, Worker], size: str, rounds: int, deadline: float) -> dict[str, dict[str, Any]]:
    """Results by engine: wall_ms, cpu_ms (medians), num_runs, peak_mib, cosine; or error.

    The first call warms up and gives the rows to compare, without a time; the first of each turn has none either, where
    it is short. No round after the first MIN_ROUNDS starts after `deadline` (time.monotonic).
    """
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    with tempfile.TemporaryDirectory() as folder:
        for name, worker in workers.items():
            path = Path(folder) / f"{name}.npy"
            rows[name] = worker.run(size, path)
            if "error" not in rows[name]:
                rows[name] = {"cosine": cosines(Path(folder) / f"{REFERENCE}.npy", path)}
    for number in range(rounds):
        if number >= MIN_ROUNDS and time.monotonic() > deadline:
            break
        for name, worker in workers.items():
            run = worker.run(size)
            if run.get("wall_s", SETTLING_S) < SETTLING_S:
                run = worker.run(size)
            if "error" not in run:
                runs[name].append(run)
    for name, found in runs.items():
        if found:
            rows[name] |= {
                "wall_ms": round(1e3 * median(run["wall_s"] for run in found), 1),
                "cpu_ms": round(1e3 * median(run["cpu_s"] for run in found), 1),
                "num_runs": len(found),
                "peak_mib": round(max(run["peak_mib"] for run in found)),
            }
        print(f"{size:>6} {name:20} {json.dumps(rows[name])[-180:]}", flush=True)
    return rows


def measure(workers: dict[str, Worker], sizes: list[str], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Rows of `measure_size` by engine and size. Each size may take an equal share of the seconds that are left."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in workers}
    end = time.monotonic() + seconds
    for number, size in enumerate(sizes):
        now = time.monotonic()
        deadline = now + (end - now) / (len(sizes) - number)
        for name, row in measure_size(workers, size, rounds, deadline).items():
            rows[name][size] = row
    return rows
