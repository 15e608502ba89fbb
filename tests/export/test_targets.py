"""A vendor's toolchain that fails, ends without a word or cannot be installed gives one typed error; the real ones run
in `make npu`."""

import sys
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidInput, MissingExtra
from edge_runtime import Bundle, Encoder
from edge_runtime.tower.accelerators.grid_graph import Opening
from edge_runtime.tower.accelerators.providers import PROVIDERS, find_provider
from export.static.target import BY_NAME, EXPORTED
from export.targets import conversion, environment
from export.targets.conversion import ToolchainError, convert

PICTURES = [np.full((4, 1536), value, np.uint8) for value in (0, 128)]
WORKER = """
import json, os, sys
import numpy as np
job = json.load(open(sys.argv[1]))
"""
ENDS = {
    "exits": ("raise SystemExit(3)", "exit code 3.*it wrote nothing"),
    "ends without an exception": ("os._exit(0)", "exit code 0"),
    "dies": ("os.kill(os.getpid(), 9)", "exit code -9"),
    "says why": ("sys.exit('Loop will cause the graph to be dynamic')", "Loop will cause the graph to be dynamic"),
    "half a result": ("open(job['result'], 'w').write('{')", "exit code 0"),
}


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workers"
    folder.mkdir()
    monkeypatch.setattr(conversion, "WORKERS", folder)
    monkeypatch.setattr(conversion, "python_for", lambda target, note: Path(sys.executable))
    return folder


def converted(tmp_path: Path) -> conversion.Converted:
    return convert("qnn", tmp_path / "static_64x64.onnx", PICTURES, ["image", "deep0"], "fp16", "57", tmp_path, print)


@pytest.mark.parametrize("name", ENDS)
def test_a_toolchain_that_fails(workers: Path, tmp_path: Path, name: str) -> None:
    code, said = ENDS[name]
    (workers / "qnn_worker.py").write_text(WORKER + code)
    with pytest.raises(ToolchainError, match=rf"(?s)qnn failed on static_64x64\.onnx in fp16 .*{said}.*Try another"):
        converted(tmp_path)


def test_a_worker_gets_floats_and_gives_answers(workers: Path, tmp_path: Path) -> None:
    (workers / "qnn_worker.py").write_text(
        WORKER
        + """
held = np.load(job["pictures"])
assert [held[f"p{i}"].shape for i in range(2)] == [(1, 4, 768)] * 2
np.savez(job["answers"], **{f"a{i}_{j}": held[f"p{i}"][:, :1, :4] + j for i in range(2) for j in range(2)})
facts = {"file": job["file"] + ".bin", "toolchain": {"made up": "1"}, "seconds": 0.5}
json.dump(facts, open(job["result"], "w"))
"""
    )
    made = converted(tmp_path)
    assert made.file == tmp_path / "static_64x64.qnn.bin"
    assert [[float(rows.mean()) for rows in outputs] for outputs in made.answers] == [[-1.0, 0.0], [0.0, 1.0]]


def test_an_environment_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VLM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(environment.REQUIREMENTS, "qnn", ("edge-vlm-no-such-package",))
    notes: list[str] = []
    with pytest.raises(
        MissingExtra, match=r"--target qnn: its toolchain could not be installed .*pip install edge-vlm-no"
    ):
        environment.python_for("qnn", notes.append)
    assert "edge-vlm-no-such-package" in notes[0]
    assert [path.suffix for path in (tmp_path / "targets").iterdir()] == [".lock"]


def test_every_toolchain_has_a_worker_and_a_provider() -> None:
    for target in environment.REQUIREMENTS:
        assert (conversion.WORKERS / f"{target}_worker.py").is_file()
        assert target in PROVIDERS
        assert target in EXPORTED
    assert set(EXPORTED) <= set(BY_NAME)


@pytest.mark.parametrize("name", ["qnn", "openvino"])
def test_a_runtime_that_is_not_installed(tmp_path: Path, name: str) -> None:
    found = find_provider(name)
    assert found is not None
    provider, device = found
    opening = Opening(tmp_path / "x.onnx", 0, "fp16", device, 1, False, tmp_path / "x.data")
    with pytest.raises(MissingExtra, match=rf"provider {name} needs an extra: pip install 'edge-vlm\[{name}\]'"):
        provider.open(opening)


def test_a_device_that_an_accelerator_has_not(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="openvino:NPU, openvino:GPU, openvino:CPU is allowed"):
        Encoder.from_bundle(bundle, provider="openvino:TPU")
