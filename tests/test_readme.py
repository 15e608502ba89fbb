"""The README does what it says: its Python block and its commands are run as they stand, other ports aside."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from edge_runtime import Pipeline
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tiny_model.scenes import shapes_scene

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, bundle_folder: Path) -> Path:
    """Where a reader would type: a picture, the exported bundle, the checkpoints."""
    shapes_scene(Random(7), 160, 128, 4).image.save(tmp_path / "picture.png")  # make demo leaves the same
    (tmp_path / "models").symlink_to(ROOT / "models")
    return tmp_path


def test_python_block(folder: Path, bundle_folder: Path, server: TritonServer, pipeline: Pipeline) -> None:
    """It answers what the block below it says, and reaches its except where no server listens."""
    (folder / "bundle").symlink_to(bundle_folder)
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line]) <= 8
    for address, says in ((server.grpc_url, blocks("text")[2].strip()), ("127.0.0.1:1", "127.0.0.1:1")):
        run = [sys.executable, "-c", code.replace("127.0.0.1:8001", address)]
        done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_it_fits_a_screen() -> None:
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 800


def test_supported_pythons() -> None:
    """Those of the packages, and what the tests need."""
    project = (ROOT / "pyproject.toml").read_text()
    first, last = re.search(r"Python (3\.\d+) to (3\.\d+);", README).groups()  # type: ignore[union-attr]
    assert f'requires-python = ">={first}"' in project
    assert re.findall(r"Python :: (3\.\d+)\"", project)[-1] == last


def test_commands_step_by_step(folder: Path) -> None:
    lines = blocks("bash")[1].splitlines()  # docs/quickstart.md has the same
    assert "\n".join(lines) in (ROOT / "docs" / "quickstart.md").read_text()
    vision, language, serve, ask = (shlex.split(line, comments=True) for line in lines)
    for command in (vision, language):
        assert command[:2] == ["python", "-m"]
        subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True, capture_output=True, timeout=300)
    ports = [part if not part.isdigit() else "0" for part in serve[1:]]
    with subprocess.Popen([sys.executable, *ports], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            address = re.search(r"grpc\s+(\S+)", ready)
            assert address, ready
            command = [sys.executable, *ask[1:-1], address[1]]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
        finally:
            process.terminate()
            process.wait(30)
