"""`python -m kernels.wheels [FOLDER]` writes a wheel for each processor, a source distribution and a bill of materials.

A wheel holds the libraries of one processor and has its tag (manylinux 2.28, the libc that they need). The source
distribution has none: an installation from it runs portable and says so when it loads.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kernels.bill import write_bill
from kernels.build import LIBRARIES, ROOT, TARGETS, build

FILES = ("pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("contract", "edge_runtime", "export", "serving", "triton_models")
TAG = "manylinux_2_28_{machine}"


def stage(folder: Path, machine: str | None) -> None:
    """Copy the files of a distribution, with the libraries of one machine or of none."""
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "libraries"))
    if machine is not None:
        (folder / "edge_runtime/libraries").mkdir()
        for target in TARGETS:
            if target.startswith(f"{machine}."):
                name = f"libedge_vlm.{target}.so"
                shutil.copy(LIBRARIES / name, folder / "edge_runtime/libraries" / name)


def distribution(out: Path, machine: str | None) -> Path:
    """Build the wheel of a machine, or the source distribution where machine is None; returns its path."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder), machine)
        if machine is None:
            call = f"build_sdist({str(out)!r})"
        else:
            options = {"--build-option": f"--plat-name={TAG.format(machine=machine)}"}
            call = f"build_wheel({str(out)!r}, {options!r})"
        code = f"from setuptools.build_meta import *; print(); print({call})"
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return out / done.stdout.split()[-1]


def main(out: Path) -> None:
    for target in TARGETS:
        if not (LIBRARIES / f"libedge_vlm.{target}.so").is_file():
            build(target)
    for machine in (*dict.fromkeys(target.partition(".")[0] for target in TARGETS), None):
        print(distribution(out, machine))
    print(write_bill(out))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
