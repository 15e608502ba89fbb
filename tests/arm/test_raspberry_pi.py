"""docs/devices.md, "Raspberry Pi, from a blank card to an answer": its commands, as far as an emulator can run them.

The workstation's run here, with the bundled model in the place of the 2B one; the fixtures that other tests share run those
of the bundle and the server. The Pi's run on the emulated processor of a Raspberry Pi 5, from the wheel. Not run: the card,
apt, scp and SSH, and pip itself on the Pi, because the emulator runs one process and pip starts others: this machine's pip
installs the wheel for it, beside PyPI's.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from kernels.wheels import distribution
from serving.triton.launcher import TritonServer
from tests.arm.machine import PLATFORMS, PYTHON, ArmMachine
from tests.conftest import ROOT
from tiny_model.scenes import Scene, shapes_scene

PAGE = (ROOT / "docs" / "devices.md").read_text().partition("## Raspberry Pi")[2].partition("\n## ")[0]
QUESTION = "How many shapes are in the image?"  # instead of the page's, which the bundled model was not taught
NUMBERS = ("zero", "one", "two", "three", "four")
PROCESSOR, KERNELS = "cortex-a76", "dotprod"  # a Raspberry Pi 5
# `bench` measures products for minutes on an emulator, whose speed says nothing: smaller ones, and a smaller picture.
SMALL = "from edge_runtime.commands import ceiling; ceiling.ROWS = ceiling.DEPTH = ceiling.COLUMNS = 16"
FEW = ["--size", "64", "--repeats", "1"]


def step(title: str) -> list[str]:
    """The commands of a step of the page."""
    (block,) = re.findall(rf"\*\*\d\. {title}[^\n]*\n.*?```bash\n(.*?)```", PAGE, re.DOTALL)
    return block.strip().splitlines()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return shapes_scene(Random(5), 160, 128, 3)


@pytest.fixture(scope="module")
def pi(
    arm: ArmMachine, exported: Callable[[str], Path], scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The Pi's home, with what step 5 copies and step 6 installs."""
    home, workstation = tmp_path_factory.mktemp("pi"), tmp_path_factory.mktemp("workstation")
    assert step("The wheel") == ["make wheels"]
    distribution(workstation / "dist", "aarch64")
    assert step("The bundle")[0].endswith("-m export.vision Qwen/Qwen3-VL-2B-Instruct bundle --precision int8")
    (workstation / "bundle").symlink_to(exported("int8"))
    (copy,) = step("Copy")
    scp, _, *sources, target = shlex.split(copy)
    assert (scp, target) == ("scp", "raspberrypi.local:")
    for source in sources:
        here, there = workstation / source, home / Path(source).name
        (shutil.copytree if here.is_dir() else shutil.copy)(here, there)
    pip = shlex.split(step("Install")[-1])
    assert pip[:2] == ["edge/bin/pip", "install"]
    there = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", "--target", "edge"]
    there += [word for name in PLATFORMS for word in ("--platform", name)]
    own = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-index",
    ]
    subprocess.run([*own, *there, "--find-links", arm.wheels, "--no-deps", *pip[2:]], cwd=home, check=True)
    scene.image.save(home / "photo.jpg", quality=95)
    return home


def test_the_pis_commands(arm: ArmMachine, pi: Path, server: TritonServer, scene: Scene) -> None:
    assert step("The bundle")[1].endswith("-m export.language Qwen/Qwen3-VL-2B-Instruct language")
    assert step("The server") == [".venv/bin/python -m serving --model language"]
    tunnel, bench, ask = (shlex.split(line) for line in step("Ask"))
    assert tunnel == ["ssh", "-fNL", "8001:127.0.0.1:8001", "server"]
    assert (bench[0], ask[0]) == ("edge/bin/edge-vlm", "edge/bin/edge-vlm")
    run = f"{SMALL}; import sys; from edge_runtime.__main__ import main; sys.exit(main(sys.argv[1:]))"
    report = arm.python(PROCESSOR, "-c", run, *bench[1:], *FEW, path=f"edge:{arm.site}", folder=pi)
    assert json.loads(report.strip().splitlines()[-1])["own_kernels"] == KERNELS
    words = [server.grpc_url if word == "127.0.0.1:8001" else word for word in ask]
    words = [QUESTION if word.startswith("What is") else word for word in words]
    said = arm.python(PROCESSOR, *words, path=f"edge:{arm.site}", folder=pi)
    assert said.strip() == f"There are {NUMBERS[len(scene.shapes)]} shapes."
