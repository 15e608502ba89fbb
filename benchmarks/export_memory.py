"""Peak memory and time of both exports at a real tower's size: `python -m benchmarks.export_memory --size 2b`.

Each export runs on a checkpoint of random weights (benchmarks.random_checkpoint), in a process of its own. The physics:
an export must hold the original tower in float32 once and the language model never, and nearly all the time is
arithmetic of the gate, once in torch and once in onnxruntime. The last line is JSON.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.encode import matrix_peak
from benchmarks.machine import machine
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from benchmarks.result import add_out, finish
from contract.manifest import PRECISIONS, read_manifest
from export import families
from export.plan import Plan

# The kernel's own figure of a child, ru_maxrss, begins with what its parent held; this one begins at nothing.
COMMAND = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def run(*arguments: str) -> dict[str, Any]:
    """One command: peak resident memory, wall and CPU seconds, and the JSON it ended with."""
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments, "--json"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [""]
    for line in child.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    return {
        "peak_rss_mb": round(int(lines[-1]) * 1024 / 1e6),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "result": json.loads(lines[-2]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory and time of both exports at a real tower's size.")
    parser.add_argument("--size", choices=SHAPES, default="2b")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--single", action="store_true", help="one file instead of shards")
    parser.add_argument("--language-gb", type=float, default=4.0, help="size of the language model beside the tower")
    parser.add_argument("--small", type=Path, default=Path("models/tiny"), help="checkpoint whose small files are used")
    parser.add_argument("--work", type=Path, help="where checkpoint and outputs are written for the time of the run")
    add_out(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        source, bundle, language = (str(Path(place) / name) for name in ("model", "bundle", "language"))
        language_bytes = int(args.language_gb * 1e9)
        tower_bytes = write_checkpoint(
            Path(source), args.small, args.size, is_single=args.single, language_bytes=language_bytes
        )
        print(f"checkpoint  {args.size} tower, {tower_bytes / 1e6:.0f} MB in float32", flush=True)
        before = matrix_peak(1)
        vision = run("export.vision", source, bundle, "--precision", args.precision)
        after = matrix_peak(1)
        tower = families.tower(json.loads((Path(source) / "config.json").read_text()))
        plan, found = Plan.of(tower, args.precision), vision.pop("result")
        data_bytes = (Path(bundle) / "vision.onnx.data").stat().st_size
        libraries = read_manifest(Path(bundle)).libraries
        shutil.rmtree(bundle)
        copied = run("export.language", source, language)
    gate_seconds = found["stages"]["original"] + found["stages"]["parity"]
    result = {
        "benchmark": "export_memory",
        "tower": args.size,
        "precision": args.precision,
        "layout": "single" if args.single else "sharded",
        "machine": machine(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "libraries": libraries,
        "tower_fp32_mb": round(tower_bytes / 1e6),
        **vision,
        "peak_over_tower": round(vision["peak_rss_mb"] * 1e6 / tower_bytes, 2),
        "planned_peak_mb": round(plan.peak_bytes / 1e6),
        "stages": found["stages"],
        "gate_tflop": round(plan.flop / 1e12, 2),
        "gate_gflop_per_second": round(plan.flop / 1e9 / gate_seconds),
        "matrix_gflop_per_second_of_one_core": [round(before / 1e9), round(after / 1e9)],
        "nodes": found["nodes"],
        "data_mb": round(data_bytes / 1e6),
        "planned_bundle_mb": round(plan.bundle_bytes / 1e6),
        "parity": found["parity"],
        "language": {"mb": round(language_bytes / 1e6)} | {k: v for k, v in copied.items() if k != "result"},
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
