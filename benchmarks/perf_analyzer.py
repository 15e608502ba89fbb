"""NVIDIA's perf_analyzer on a machine without its container: where it comes from, one run of it, what its export says.

The tritonclient 2.46.0 wheel has the last one on PyPI that starts on an older glibc. It lacks two libraries, which the
Triton wheel has under other names; this module links them.
"""

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from contract.errors import ServerError
from contract.names import MODEL, UNARY_MODEL
from serving.triton.build import wheel_folder
from serving.triton.cache import made_once
from serving.triton.pip import install_into

REQUIREMENT = "tritonclient==2.46.0"
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
DOORS = {"grpc stream": (MODEL, "grpc", ("--streaming",)), "http unary": (UNARY_MODEL, "http", ())}


@dataclass(frozen=True)
class Load:
    """One door at one concurrency. Times in ms; a door with one response has no first token and no gaps."""

    door: str
    concurrency: int
    num_requests: int
    requests_per_second: float
    tokens_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    first_token_p50_ms: float | None
    first_token_p99_ms: float | None
    inter_token_p50_ms: float | None


def folder() -> Path:
    """The folder with bin/perf_analyzer and lib/; the first call makes it.

    Raises:
        ServerError: pip could not install the wheel.
    """

    def make(work: Path) -> None:
        install_into(work, REQUIREMENT)
        (work / "lib").mkdir()
        libraries = wheel_folder().parents[1] / "nvidia_pytriton.libs"
        for name, pattern in LIBRARIES.items():
            (work / "lib" / name).symlink_to(next(libraries.glob(pattern)))

    return made_once(f"perf-analyzer-{REQUIREMENT.partition('==')[2]}", make)


def run(door: str, url: str, inputs: Path, concurrency: int, window_ms: int, max_tokens: int) -> Load:
    """Load one door with the folder `inputs` of examples.perf_analyzer for three windows.

    Raises:
        ServerError: perf_analyzer failed; the message has the end of what it wrote.
    """
    model, protocol, flags = DOORS[door]
    root, export = folder(), inputs / f"{protocol}-{concurrency}.json"
    line = [str(root / "bin" / "perf_analyzer"), "-m", model, "-i", protocol, *flags, "-u", url]
    line += ["--input-data", str(inputs / "inputs.json")]
    line += ["--concurrency-range", str(concurrency), "--measurement-interval", str(window_ms)]
    line += ["--max-trials", "3", "--stability-percentage", "999", "--profile-export-file", str(export)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(root / "lib")}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not export.is_file():
        raise ServerError(f"perf_analyzer failed: {done.stdout[-2000:]} {done.stderr[-500:]}")
    return read(door, concurrency, export, max_tokens)


def read(door: str, concurrency: int, export: Path, max_tokens: int) -> Load:
    """The figures of an export, from its timestamps (ns). Its tensors are no UTF-8, and this does not need them."""
    (experiment,) = json.loads(export.read_bytes().decode(errors="replace"), strict=False)["experiments"]
    requests = [r for r in experiment["requests"] if r["response_timestamps"]]
    span = max(r["response_timestamps"][-1] for r in requests) - min(r["timestamp"] for r in requests)
    latencies = [(r["response_timestamps"][-1] - r["timestamp"]) / 1e6 for r in requests]
    firsts, gaps = None, None
    if max(len(r["response_timestamps"]) for r in requests) > 1:
        firsts = [(r["response_timestamps"][0] - r["timestamp"]) / 1e6 for r in requests]
        times = [r["response_timestamps"] for r in requests]
        gaps = [(b - a) / 1e6 for row in times for a, b in pairwise(row)]
    return Load(
        door,
        concurrency,
        len(requests),
        round(len(requests) / span * 1e9, 2),
        round(len(requests) * max_tokens / span * 1e9, 1),
        _percentile(latencies, 50),
        _percentile(latencies, 99),
        _percentile(firsts, 50) if firsts else None,
        _percentile(firsts, 99) if firsts else None,
        _percentile(gaps, 50) if gaps else None,
    )


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)
