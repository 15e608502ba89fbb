"""Every example and notebook runs as it stands, against the bundled model, and says what is right."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import nbformat
import pytest
from nbclient import NotebookClient

from edge_runtime import GrpcClient, Pipeline, Sampling
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tests.gateway.drawings import drawn, moving, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tiny_model.scenes import text_scene

EXAMPLES = ROOT / "examples"
SCENE, QUESTIONS = drawn(1)
DESCRIPTION = next(question.answer for question in QUESTIONS if question.kind == "describe")
COUNT = f" {('zero', 'one', 'two', 'three', 'four')[len(SCENE.shapes)]} shape"


@pytest.fixture(scope="module")
def gateway(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    with gateway_process(bundle_folder, server.grpc_url) as gateway:
        yield gateway


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader would type."""
    SCENE.image.save(tmp_path / "picture.png")
    drawn(2)[0].image.save(tmp_path / "other.png")
    moving(tmp_path / "clip.mp4", 0)
    return tmp_path


def run(folder: Path, *command: str | Path) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=120, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def example(folder: Path, name: str, *args: str | Path) -> list[str]:
    return run(folder, sys.executable, EXAMPLES / name, *args)


def test_openai_client(folder: Path, gateway: Gateway) -> None:
    assert example(folder, "openai_client.py", "picture.png", "Describe the image.", "--url", gateway.url) == [
        DESCRIPTION
    ]


def test_curl(folder: Path, gateway: Gateway) -> None:
    lines = run(folder, "sh", EXAMPLES / "curl.sh", "picture.png", "How many shapes are there?", gateway.url)
    assert COUNT in json.loads("".join(lines))["choices"][0]["message"]["content"]
    quoted = 'What is "\\" here,\nand what\tthere?'
    read = user(picture_part(SCENE.image), " ".join(quoted.split()))
    answer = json.loads("".join(run(folder, "sh", EXAMPLES / "curl.sh", "picture.png", quoted, gateway.url)))
    assert answer["usage"]["prompt_tokens"] == gateway.ask("/tokenize", {"messages": [read]})[1]["count"]


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_tritonclient_alone(folder: Path, bundle_folder: Path, server: TritonServer, door: str) -> None:
    address = (server.grpc_url if door == "grpc" else server.http_url).removeprefix("http://")
    where = ["--bundle", bundle_folder, "--triton", address]
    assert example(folder, f"triton_{door}.py", "picture.png", "Describe the image.", *where) == [DESCRIPTION]


def test_video_question(folder: Path, bundle_folder: Path, server: TritonServer) -> None:
    where = ["--bundle", bundle_folder, "--triton", server.grpc_url]
    _, question = moving(folder / "clip.mp4", 0)
    assert example(folder, "video_question.py", "clip.mp4", question.text, *where) == [question.answer]


def test_read_text(folder: Path, gateway: Gateway) -> None:
    for seed in (82, 159, 390):  # JZF, 73839, RT
        scene = text_scene(Random(seed), 128, 96, 3)
        scene.image.save(folder / "text.png")
        answer, certainty = example(folder, "read_text.py", "text.png", "--url", gateway.url)
        assert answer == f'The text is "{scene.text}".'
        found = re.fullmatch(r"least certain: '.*', (\d\.\d{3})", certainty)
        assert found, certainty
        assert 0 < float(found[1]) <= 1


def test_several_pictures(folder: Path, gateway: Gateway, pipeline: Pipeline, server: TritonServer) -> None:
    first, second = example(folder, "several_pictures.py", "picture.png", "other.png", "--url", gateway.url)
    assert first.startswith(f"picture.png: {DESCRIPTION} [20 of ")
    content = [{"type": "text", "text": "Describe the image."}]
    request = pipeline.request(
        [
            {"role": "user", "content": [{"type": "image", "image": folder / "picture.png"}, *content]},
            {"role": "assistant", "content": DESCRIPTION},
            {"role": "user", "content": [{"type": "image", "image": folder / "other.png"}, *content]},
        ]
    )
    with GrpcClient(server.grpc_url) as client:
        answer = "".join(delta.text for delta in client.stream(request, Sampling(max_tokens=64)))
    assert second == f"other.png: {answer} [40 of {len(request.input_ids)} prompt tokens]"


def test_search_pictures(folder: Path, bundle_folder: Path, server: TritonServer) -> None:
    """The vectors of the first search serve the second; a new picture joins them."""
    where = ["--bundle", bundle_folder, "--triton", server.grpc_url]
    (folder / "album").mkdir()
    for name in ("picture.png", "other.png"):
        (folder / name).rename(folder / "album" / name)
    first = example(folder, "search_pictures.py", "album", "a red circle", *where)
    drawn(3)[0].image.save(folder / "album" / "third.png")
    second = example(folder, "search_pictures.py", "album", "a red circle", *where)
    assert {line.split()[1] for line in second} == {"picture.png", "other.png", "third.png"}
    assert set(first) < set(second)
    found = [float(line.split()[0]) for line in second]
    assert found == sorted(found, reverse=True)


def test_search_store(folder: Path, bundle_folder: Path, server: TritonServer) -> None:
    """The command fills the store; the example finds all that is in it, best first."""
    where = ["--bundle", bundle_folder, "--triton", server.grpc_url]
    pictures = ["picture.png", "other.png"]
    run(folder, sys.executable, "-m", "edge_runtime", "embed", *pictures, *where, "--out", "pictures.db")
    lines = [line.split() for line in example(folder, "search_store.py", "pictures.db", "a red circle", *where)]
    assert sorted(name for _, name in lines) == sorted(pictures)
    assert float(lines[0][0]) >= float(lines[1][0])


@pytest.mark.parametrize("name", ["picture", "video"])
def test_notebooks(
    folder: Path, bundle_folder: Path, server: TritonServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_VLM_BUNDLE", str(bundle_folder))
    monkeypatch.setenv("EDGE_VLM_TRITON", server.grpc_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert any("image/png" in output.get("data", {}) for output in outputs)
    expected = [DESCRIPTION, COUNT] if name == "picture" else [moving(folder / "clip.mp4", 0)[1].answer] * 2
    first, second = re.findall(r"^(.*)\n\[(\d) uploaded, (\d+) bytes sent\]$", said, re.MULTILINE)
    assert expected[0] in first[0]
    assert expected[1] in second[0]
    assert (first[1], second[1]) == ("1", "0")
    assert int(second[2]) < int(first[2])


def test_every_example_is_run() -> None:
    """A new one without a test would rot."""
    here = Path(__file__).read_text()
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".ipynb")} - {"__init__.py"}
    named = {name for name in names if name in here or name.removesuffix(".ipynb") in ("picture", "video")}
    assert names - named <= {"demo.py", "triton_grpc.py", "triton_http.py"}  # tests/test_demo.py, and by their door
