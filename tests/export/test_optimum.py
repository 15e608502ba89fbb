"""optimum-cli itself, in its own folder of packages: the models of this export's families end in it, others do not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime import Bundle
from export.source.checkpoint import Checkpoint
from tests.conftest import CHECKPOINT, ROOT
from tests.export.tiny_checkpoint import write_json

OPTIMUM = ROOT / ".cache" / "optimum"  # optimum, optimum-onnx and this project's file (make setup)


@pytest.fixture(scope="module", params=["optimum alone", "with optimum-onnx"])
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "with optimum-onnx":
        return OPTIMUM
    folder = tmp_path_factory.mktemp("optimum") / "packages"
    shutil.copytree(
        OPTIMUM, folder, ignore=shutil.ignore_patterns("onnx*", "optimum_onnx*", "register_export.py", "register_onnx*")
    )
    return folder


def optimum_cli(packages: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """optimum-cli export onnx ..."""
    path = os.pathsep.join([str(packages), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "onnx", *map(str, args)],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_it_ends_in_this_export(packages: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = optimum_cli(
        packages, "--model", checkpoint, "--task", "image-text-to-text", "--dtype", "fp16", tmp_path / "out"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = Bundle.load(tmp_path / "out")
    assert bundle.manifest.precision == "fp16"
    assert bundle.manifest.card.encoder_fingerprint == Checkpoint(checkpoint).fingerprint
    assert "the server's half: python -m export.language" in done.stdout


def test_what_it_would_ignore_is_refused(packages: Path, tmp_path: Path) -> None:
    done = optimum_cli(packages, "-m", CHECKPOINT, "--task", "text-generation-with-past", tmp_path / "out")
    assert (done.returncode, "--task is 'text-generation-with-past'" in done.stderr) == (2, True), done.stderr
    done = optimum_cli(packages, "-m", CHECKPOINT, "--opset", "14", tmp_path / "out")
    assert done.returncode == 2
    assert "--opset" in done.stderr  # refused here, or by the parser of the command that has none
    assert not (tmp_path / "out").exists()


def test_other_models_go_their_own_way(packages: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    done = optimum_cli(packages, "-m", tmp_path, "--task", "auto", tmp_path / "out")
    said = "optimum/exporters/onnx" if packages == OPTIMUM else "is of model_type 'bert'"
    assert done.returncode != 0  # beside transformers 5.23 optimum-onnx exports nothing
    assert said in done.stderr
