"""Instructions that a Raspberry Pi 5's processor executes for one layer of a 2B tower: `python -m tests.arm.instructions`.

QEMU's Cortex-A76 (Armv8.2 with dot products) logs every block of instructions that it executes, and how many each block
has. Counted are the kernels' library, onnxruntime's own operators without it, and llama.cpp's product, each with what
turns float32 rows into its left side. Python's own instructions are not counted. The log needs QEMU and Debian's Python of
`make arm` and the source of llama.cpp that `make bench-edge` unpacks. The last line is JSON.

An instruction count is no time: a predicted time assumes instructions a cycle and a clock, both in the result.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import add_out, finish
from edge_runtime.tower.kernels import LIBRARIES
from tests.arm.machine import PYTHON, ROOT, ArmMachine, prepare
from tests.edge.operators import ROWS, floats, graph, stored

CPU, KERNELS = "cortex-a76", "dotprod"
LLAMA = ROOT / ".cache" / "peers" / "llama" / "llama.cpp" / "ggml"
NUM_ROWS, NUM_INPUTS, NUM_OUTPUTS = 256, 1024, 256  # a picture of 256 x 256, a quarter of a layer of attention
APART = 64 << 20  # from the libraries to an end of what is logged: they may lie a little elsewhere in the second run
CLOCK_HZ, INSTRUCTIONS_A_CYCLE = 2.4e9, 2.0  # a Raspberry Pi 5; an assumption, two vector pipes
MARK = "MARK "
CHILD = """
import os, sys
import numpy as np
import onnxruntime
from edge_runtime.tower.session_options import session_options

folder, log, *names = sys.argv[1:]
sessions = {}
for name in names:
    options = session_options(1, use_kernels=name.startswith("edge-vlm"))
    sessions[name] = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options)
for line in open("/proc/self/maps"):
    place, kind, *_, path = line.split()
    if "x" in kind and ("onnxruntime_pybind11" in path or "libedge_vlm" in path):
        print(place, path)
if log != "none":
    rows, to = {"rows": np.load(f"{folder}/rows.npy")}, os.open(log, os.O_WRONLY)
    for name, session in sessions.items():
        session.run(None, rows)
        os.write(to, f"MARK {name}\\n".encode())
        session.run(None, rows)
        os.write(to, b"MARK\\n")
"""


class Counter:
    """Reads QEMU's log of one program and counts the instructions between marks."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"": 0}

    def read(self, lines: Iterator[str]) -> None:
        sizes, first, name = dict[str, int](), "", ""
        for line in lines:
            if line.startswith("Trace"):
                self.counts[name] += sizes.get(line.split("/", 2)[1].lstrip("0"), 0)
            elif line.startswith("0x"):
                place = line[2 : line.index(":")].lstrip("0")
                if not first:  # a block, maybe one that was translated before
                    first, sizes[place] = place, 0
                sizes[first] += 1
            elif line.startswith("IN:"):
                first = ""
            elif line.startswith(MARK.strip()):
                name = line[len(MARK) :].strip()
                self.counts.setdefault(name, 0)


def logged(command: list[str | Path], log: Path, environment: dict[str, str]) -> tuple[dict[str, int], str]:
    """The counts of a program whose log goes into the pipe `log`, and its output."""
    os.mkfifo(log)
    counter = Counter()

    def read() -> None:
        with log.open() as lines:
            counter.read(lines)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    reader.join(60)
    return counter.counts, done.stdout


def of_onnxruntime(arm: ArmMachine, folder: Path) -> dict[str, int]:
    """Instructions of the kernels and of onnxruntime's operators, by name."""
    constants = stored(NUM_INPUTS, NUM_OUTPUTS)
    weight = floats(NUM_OUTPUTS, NUM_INPUTS) / np.sqrt(NUM_INPUTS, dtype=np.float32)
    kinds = {
        "edge-vlm int8": ("Linear8", constants),
        "onnxruntime int8": ("Linear8", constants),
        "edge-vlm fp16": ("Linear16", {"weight": weight.astype(np.float16), "bias": floats(NUM_OUTPUTS)}),
        "onnxruntime fp32": ("Linear32", {"weight": weight, "bias": floats(NUM_OUTPUTS)}),
    }
    for name, (kind, values) in kinds.items():
        (folder / f"{name}.onnx").write_bytes(graph(kind, ROWS, values))
    np.save(folder / "rows.npy", floats(NUM_ROWS, NUM_INPUTS))
    (folder / "child.py").write_text(CHILD)
    environment = {"PYTHONPATH": f"{ROOT}:{arm.site}", "PYTHONDONTWRITEBYTECODE": "1", "HOME": os.environ["HOME"]}
    python = [arm.root / "usr" / "bin" / f"python{PYTHON}", folder / "child.py", folder]
    emulator = ["setarch", "-R", arm.qemu, "-cpu", CPU, "-L", arm.root]
    told = subprocess.run(
        [*emulator, *python, "none", *kinds], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"libedge_vlm.aarch64.{KERNELS}" in told.stdout, told.stdout
    first, last = _span(told.stdout)
    ranges = f"{first - APART:#x}..{last + APART:#x}"
    log = folder / "log"
    words = [*emulator, "-d", "exec,nochain,in_asm", "-dfilter", ranges, "-D", log, *python, log, *kinds]
    counts, printed = logged(words, log, environment)
    found = _span(printed)
    assert first - APART <= found[0], "the libraries lie elsewhere in the second run"
    assert found[1] <= last + APART, "the libraries lie elsewhere in the second run"
    return {name: counts[name] for name in kinds}


def _span(told: str) -> tuple[int, int]:
    """The lowest and the highest address of the libraries that the child names."""
    places = [int(address, 16) for line in told.splitlines() for address in line.split()[0].split("-")]
    return min(places), max(places)


def of_llama(arm: ArmMachine, folder: Path) -> dict[str, int]:
    """Instructions of llama.cpp's product, by name: what a second run of it adds."""
    flags = ["-target", "aarch64-linux-musl", "-mcpu=cortex_a76", "-O3", "-ffunction-sections", "-w", "-DNDEBUG"]
    flags += ["-DGGML_USE_LLAMAFILE", *(f"-I{LLAMA / name}" for name in ("include", "src", "src/ggml-cpu"))]
    zig, program = [sys.executable, "-m", "ziglang"], folder / "llama"
    sources = [
        ("cc", LLAMA / "src/ggml-cpu/arch/arm/quants.c"),
        ("c++", LLAMA / "src/ggml-cpu/llamafile/sgemm.cpp"),
        ("c++", Path(__file__).with_name("llama.cc")),
    ]
    objects = []
    for compiler, source in sources:
        objects.append(folder / f"{source.stem}.o")
        language = ["-std=c++17", "-fno-exceptions", "-fno-rtti"] if compiler == "c++" else []
        subprocess.run([*zig, compiler, *flags, *language, "-c", source, "-o", objects[-1]], check=True)
    subprocess.run([*zig, "cc", *flags[:2], "-static", "-Wl,--gc-sections", *objects, "-o", program, "-lm"], check=True)
    found = {}
    for kind in ("q8_0", "f16"):
        totals = []
        for runs in ("1", "2"):
            shape = map(str, (NUM_ROWS, NUM_INPUTS, NUM_OUTPUTS))
            log = folder / f"log_{kind}_{runs}"
            words = [arm.qemu, "-cpu", CPU, "-d", "exec,nochain,in_asm", "-D", log, program, kind, *shape, runs]
            totals.append(logged(words, log, dict(os.environ))[0][""])
        found[f"llama.cpp {kind}"] = totals[1] - totals[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of one layer on an emulated Cortex-A76.")
    add_out(parser)
    args = parser.parse_args()
    library = LIBRARIES / f"libedge_vlm.aarch64.{KERNELS}.so"
    if not library.is_file() or not LLAMA.is_dir():
        sys.exit(f"{library if LLAMA.is_dir() else LLAMA} is missing: run make setup and make bench-edge first")
    arm, products = prepare(), NUM_ROWS * NUM_INPUTS * NUM_OUTPUTS
    with tempfile.TemporaryDirectory() as place:
        counts = of_llama(arm, Path(place)) | of_onnxruntime(arm, Path(place))
    rows: list[dict[str, Any]] = [
        {
            "what": name,
            "instructions": count,
            "products_an_instruction": round(products / count, 2),
            "predicted_ms": round(count / INSTRUCTIONS_A_CYCLE / CLOCK_HZ * 1e3, 1),
        }
        for name, count in sorted(counts.items(), key=lambda one: one[1])
    ]
    qemu = subprocess.run([arm.qemu, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    result = {
        "benchmark": "arm_instructions",
        "processor": f"{CPU}, emulated by {qemu}",
        "layer": f"{NUM_ROWS} rows, {NUM_INPUTS} inputs, {NUM_OUTPUTS} outputs",
        "assumed": {"clock_hz": CLOCK_HZ, "instructions_a_cycle": INSTRUCTIONS_A_CYCLE},
        "rows": rows,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
