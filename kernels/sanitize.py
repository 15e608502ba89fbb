"""`make sanitize` runs the kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer.

The compiler is Debian's clang, because zig brings no runtime of AddressSanitizer and g++ 12 does not read our AMX. It
builds for x86-64 alone, because the sanitizers of other processors do not run here. The libraries lie in .cache, the
product's own stay as they are. `--out FILE` keeps what came of it, one JSON line; other arguments go to pytest.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from edge_runtime.tower.processor import processor_name
from kernels.build import ROOT, SOURCES, TARGETS, headers

COMPILER = "clang++-14"
FOLDER = ROOT / ".cache" / "sanitized"
REPORT = FOLDER / "report"
VARIABLE = "EDGE_VLM_SANITIZED"  # tells tests.edge.sanitized where the libraries lie
MACHINE = {
    "x86_64.avx512": ["-march=x86-64-v3", *(f"-mavx512{name}" for name in ("f", "bw", "dq", "vl", "vnni"))],
    "x86_64.avx2": ["-march=x86-64-v3"],
}
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all", "-shared-libasan"]
FLAGS = ["-O1", "-g", "-std=c++17", "-fPIC", "-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics", *SANITIZE]
TESTS = ["attention", "floats", "integers", "matrix"]  # in the order of the suite: they share their random numbers


def build(target: str) -> Path:
    """Compile one target with both sanitizers; returns the library."""
    copy = FOLDER / "kernels"
    shutil.copytree(SOURCES, copy, dirs_exist_ok=True)
    for path in copy.rglob(
        "*.cc"
    ):  # clang 14 does not know this word, and no flag here turns on what the word turns off
        path.write_text(path.read_text(encoding="utf-8").replace(" reciprocal(off)", ""), encoding="utf-8")
    folders = [copy, *(copy / name for name in TARGETS[target].folders)]
    include = [f"-I{path}" for path in (*folders, headers())]
    sources = [str(path) for folder in folders for path in sorted(folder.glob("*.cc"))]
    library = FOLDER / f"libedge_vlm.{target}.so"
    line = [COMPILER, *MACHINE[target], *FLAGS, *include, "-shared", *sources, "-lm", "-o", str(library)]
    subprocess.run(line, check=True)
    return library


def runtime() -> str:
    """The path of the sanitizers' runtime, which the system has to load before Python."""
    name = "-print-file-name=libclang_rt.asan-x86_64.so"
    return subprocess.run([COMPILER, name], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.sanitize", description=__doc__)
    parser.add_argument("--out", type=Path, help="the file for the JSON line")
    options, further = parser.parse_known_args()
    begun = time.monotonic()
    for target in MACHINE:
        print(build(target), flush=True)
    environment = os.environ | {
        VARIABLE: str(FOLDER),
        "LD_PRELOAD": runtime(),
        # what Python keeps until its end is no leak of ours; pytest captures stderr, so the reports go to files
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={REPORT}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={REPORT}",
    }
    counted = FOLDER / "tests.xml"
    tests = [f"tests/edge/test_kernel_{name}.py" for name in TESTS]
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.edge.sanitized", f"--junit-xml={counted}"]
    for path in (*FOLDER.glob(f"{REPORT.name}.*"), counted):
        path.unlink(missing_ok=True)
    code = subprocess.run([*line, *tests, *further], cwd=ROOT, env=environment).returncode
    reports = [path.read_text(encoding="utf-8", errors="replace") for path in FOLDER.glob(f"{REPORT.name}.*")]
    print(*reports, sep="\n")
    if options.out is not None:
        facts = {
            "part": "sanitize",
            "machine": processor_name(),
            "targets": list(MACHINE),
            "seconds": round(time.monotonic() - begun),
        }
        found = facts | outcomes(counted) | {"reports": reports, "is_sound": not (code or reports)}
        options.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return code or int(bool(reports))


def outcomes(counted: Path) -> dict[str, int]:
    """How many tests ran, failed and were skipped, out of pytest's JUnit file; nothing where pytest has written none."""
    if not counted.is_file():
        return {}
    suites = list(ElementTree.parse(counted).iter("testsuite"))
    names = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}


if __name__ == "__main__":
    sys.exit(main())
