"""The README does what it says: its Python block and its commands are run as they stand, other ports aside."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from edge_runtime import GrpcClient, Pipeline
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tiny_model.scenes import shapes_scene

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, bundle_folder: Path) -> Path:
    """Where a reader would type: a picture, the exported bundle, the checkpoints."""
    shapes_scene(Random(5), 160, 128, 3).image.save(tmp_path / "picture.png")
    (tmp_path / "models").symlink_to(ROOT / "models")
    return tmp_path


def test_python_block(folder: Path, bundle_folder: Path, server: TritonServer, pipeline: Pipeline) -> None:
    (folder / "bundle").symlink_to(bundle_folder)
    code = blocks("python")[0]
    assert len(code.splitlines()) <= 8
    code = code.replace("127.0.0.1:8001", server.grpc_url)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with GrpcClient(server.grpc_url) as client:
        deltas = client.stream(pipeline.ask(folder / "picture.png", "How many circles are there?"))
        assert done.stdout == "".join(delta.text for delta in deltas)


def test_bound_messages(folder: Path, bundle_folder: Path) -> None:
    """The block about messages from others: what it allows and what it does not."""
    (folder / "bundle").symlink_to(bundle_folder)
    (folder / "media").mkdir()
    (folder / "picture.png").rename(folder / "media" / "picture.png")
    code = blocks("python")[1].replace("/srv/media", str(folder / "media"))
    code += f"pipeline.ask({str(folder / 'media' / 'picture.png')!r}, 'What?')\n"
    run = [sys.executable, "-c"]
    subprocess.run([*run, code], cwd=folder, check=True, timeout=60)
    for other, says in (
        ("bundle/parity.png", "allowed_local_media_path"),
        ("https://example.org/x.png", "allowed_media_domains"),
    ):
        done = subprocess.run(
            [*run, f"{code}pipeline.ask({other!r}, 'What?')"], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert says in done.stderr


def test_commands_step_by_step(folder: Path) -> None:
    lines = blocks("bash")[1].splitlines()
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


def test_curl(server: TritonServer) -> None:
    (line,) = blocks("bash")[2].splitlines()
    command = shlex.split(line.replace("127.0.0.1:8000", server.http_url))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    events = [json.loads(line.removeprefix("data: ")) for line in done.stdout.splitlines() if line]
    assert 1 <= len(events) <= 8
    assert all(event["model_name"] == "qwen3_vl" and "error" not in event for event in events)


def test_make_lines_are_verbs() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= verbs
