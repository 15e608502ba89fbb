"""Wheels carry the kernels of their processor and say so; the source distribution carries none and says that."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from edge_runtime.tower import kernels
from kernels.bill import write_bill
from kernels.build import LIBRARIES, TARGETS
from kernels.wheels import distribution

pytestmark = pytest.mark.skipif(not any(LIBRARIES.glob("*.so")), reason="python -m kernels.build makes the libraries")
LOAD = "import logging; logging.basicConfig(level=20); from edge_runtime.tower import kernels; print(kernels.library())"


def load(python: Path, folder: Path, *more: str) -> tuple[str, str]:
    """What an installation says when it loads its kernels, elsewhere than in the checkout."""
    done = subprocess.run([str(python), "-c", LOAD], cwd=folder, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_wheel_holds_the_kernels_of_its_processor(tmp_path: Path, machine: str) -> None:
    wheel = distribution(tmp_path, machine)
    assert wheel.name.endswith(f"-py3-none-manylinux_2_28_{machine}.whl")
    with zipfile.ZipFile(wheel) as files:
        libraries = {Path(name).name for name in files.namelist() if name.endswith(".so")}
        assert libraries == {f"libedge_vlm.{target}.so" for target in TARGETS if target.startswith(machine)}
        (said,) = [name for name in files.namelist() if name.endswith(".dist-info/WHEEL")]
        assert f"Tag: py3-none-manylinux_2_28_{machine}" in files.read(said).decode()
        for name in libraries:
            head = files.read(f"edge_runtime/libraries/{name}")[:20]
            assert head[:4] == b"\x7fELF"
            assert head[18] == {"x86_64": 62, "aarch64": 183}[machine]  # ELF's numbers of the two


@pytest.mark.skipif(kernels.library() is None, reason="no kernels for this processor")
def test_an_installed_wheel_loads_its_kernels(tmp_path: Path) -> None:
    import platform

    wheel = distribution(tmp_path / "dist", platform.machine())
    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    (tmp_path / "elsewhere").mkdir()
    site = next((tmp_path / "fresh/lib").glob("python*/site-packages"))
    (site / "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    found, said = load(python, tmp_path / "elsewhere")
    assert found.startswith(str(site)), found
    assert f"kernels: {Path(found).name}" in said


def test_what_has_no_kernels_says_so(tmp_path: Path) -> None:
    source = distribution(tmp_path, None)
    with tarfile.open(source) as files:
        assert not [name for name in files.getnames() if name.endswith(".so")]
        files.extractall(tmp_path / "source", filter="data")
    (folder,) = (tmp_path / "source").iterdir()
    found, said = load(Path(sys.executable), folder)
    assert found == "None"
    assert "runs without its kernels" in said


def test_the_bill_of_materials_names_what_an_install_brings(tmp_path: Path) -> None:
    bill = json.loads(write_bill(tmp_path).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "edge-vlm"
    assert bill["metadata"]["component"]["version"] == version("edge-vlm")
    found = {one["name"].lower(): one["version"] for one in bill["components"]}
    assert found["onnxruntime"] == version("onnxruntime")
    assert {"pillow", "torch", "starlette", "h11", "protobuf"} <= found.keys()  # h11 and protobuf come through others
    assert not {"pytest", "mypy", "edge-vlm"} & found.keys()
