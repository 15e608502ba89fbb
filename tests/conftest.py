"""One bundle, one language checkpoint and one real Triton server for the whole run."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.load_profile("ci")  # the same examples in every run; `make campaign` draws new ones

import tests.processor  # noqa: F401  declares torchvision's operators before transformers is imported
from edge_runtime import Bundle, Encoder, Pipeline
from serving.triton.launcher import TritonServer
from tests.engine import ENGINE, settings

# They import vLLM, so they run in its environment only: `make test-vllm`, and the most important ones in `make test`.
collect_ignore = [] if importlib.util.find_spec("vllm") else ["vllm"]
if ENGINE != "vllm":
    collect_ignore.append("serving/test_engine_core.py")  # kills what no other engine has
    TritonServer.grace_seconds = 0  # unloading takes 4 s; tests/serving/test_launcher.py waits for a server that does
ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "models" / "tiny"


def run_module(*args: str | Path) -> None:
    """Run `python -m …` as a user does; its output is shown when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    run_module("export.vision", CHECKPOINT, folder)
    return folder


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("export") / "language"
    run_module("export.language", CHECKPOINT, folder, "--bundle", bundle_folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


@pytest.fixture(scope="session")
def pipeline(bundle: Bundle) -> Pipeline:
    return Pipeline(Encoder.from_bundle(bundle, threads=1))


@pytest.fixture(scope="session")
def server(language_folder: Path) -> Iterator[TritonServer]:
    with TritonServer(settings(language_folder)) as server:
        yield server
