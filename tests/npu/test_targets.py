"""Real toolchains on the bundled model: what the export publishes and refuses, and that the device runs the files.

Each makes an environment of its own the first time (half a gigabyte), so `make npu` runs this and not `make test`.
"""

import json
import os
import subprocess
import sysconfig
import zipfile
from pathlib import Path

import onnx
import pytest

from contract.errors import InvalidInput, ParityError
from contract.files import digest
from contract.manifest import read_manifest
from edge_runtime import Encoder
from export.static.choice import StaticChoice
from export.targets.environment import python_for
from export.vision import export_vision
from tests.conftest import CHECKPOINT, ROOT

RUN = """
import json, sys
import numpy as np
from PIL import Image
from edge_runtime import Encoder, Pipeline
bundle, provider, out = sys.argv[1:]
pipeline = Pipeline(Encoder.from_bundle(bundle, threads=1, provider=provider))
picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
request = pipeline.ask(picture, "What is it?")
np.savez(out, main=request.main, deepstack=request.deepstack)
print(json.dumps(request.ran))
"""


@pytest.fixture(autouse=True)
def few_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    from export.gate import packs

    monkeypatch.setattr(packs, "BUDGET_FLOP", 0)
    monkeypatch.setattr(packs, "ALWAYS", packs.ALWAYS[:4])


def ran(target: str, bundle: Path, provider: str, out: Path) -> list[str]:
    """What ran a picture in the target's environment, which sees this project's packages behind its own."""
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    code = f"import sys; sys.path += {paths.split(os.pathsep)!r}\n{RUN}"
    command = [str(python_for(target, print)), "-c", code, str(bundle), provider, str(out)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("target", "precision", "provider"),
    [("qnn", "fp16", "qnn"), ("openvino", "fp16", "openvino:CPU"), ("litert", "fp32", "litert")],
)
def test_a_bundle_runs_on_its_accelerator(tmp_path: Path, target: str, precision: str, provider: str) -> None:
    export_vision(str(CHECKPOINT), tmp_path / "bundle", static=StaticChoice("128x128", target, precision))
    (graph,) = read_manifest(tmp_path / "bundle").static
    assert (graph.target, graph.precision) == (target, precision)
    assert graph.figures["centred_mean_cosine"] >= 0.999
    assert ran(target, tmp_path / "bundle", provider, tmp_path / "rows.npz") == [f"{provider} {precision} 128x128"]


def test_a_rockchip_bundle_names_its_chip(tmp_path: Path) -> None:
    """The simulator answers here; the file itself runs on the board alone."""
    folder = tmp_path / "bundle"
    export_vision(str(CHECKPOINT), folder, static=StaticChoice("128x128", "rknn", chip="rk3576"))
    (graph,) = read_manifest(folder).static
    assert (graph.target, graph.precision, graph.chip) == ("rknn", "fp16", "rk3576")
    assert graph.figures["centred_mean_cosine"] >= 0.999
    assert (folder / graph.file).read_bytes()[:4] == b"RKNN"
    assert sorted(path.name for path in folder.glob("static*")) == ["static_128x128.rknn"]
    with pytest.raises(InvalidInput, match="provider rknn runs on boards with rk3588 or rk3576"):
        Encoder.from_bundle(folder, provider="rknn")


def test_a_core_ml_bundle_holds_a_package(tmp_path: Path) -> None:
    """coremltools' own definitions of the operators answer here; the package itself runs on a Mac alone."""
    folder = tmp_path / "bundle"
    export_vision(str(CHECKPOINT), folder, static=StaticChoice("128x128", "coreml"))
    (graph,) = read_manifest(folder).static
    assert (graph.target, graph.precision, graph.file) == ("coreml", "fp16", "static_128x128.coreml.zip")
    assert graph.figures["centred_mean_cosine"] >= 0.999
    with zipfile.ZipFile(folder / graph.file) as archive:
        assert "static_128x128.mlpackage/Manifest.json" in archive.namelist()
    with pytest.raises(InvalidInput, match="provider coreml runs on macOS"):
        Encoder.from_bundle(folder, provider="coreml")


def test_nodes_left_on_the_processor_are_an_error(tmp_path: Path) -> None:
    """The HTP has no Acosh: onnxruntime would run it on the processor and say nothing."""
    folder = tmp_path / "bundle"
    export_vision(str(CHECKPOINT), folder, static=StaticChoice("128x128", "qnn", "fp16"))
    (graph,) = read_manifest(folder).static
    model = onnx.load(folder / graph.file, load_external_data=False)
    (last,) = (node for node in model.graph.node if node.output[0] == "image")
    last.output[0] = "rows"
    model.graph.node.append(onnx.helper.make_node("Acosh", ["rows"], ["image"]))
    (folder / graph.file).write_bytes(model.SerializeToString())
    values = json.loads((folder / "manifest.json").read_text())
    values["files"][graph.file] = digest(folder / graph.file)
    (folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(AssertionError, match=r"leaves nodes of static_128x128\.onnx on the processor: allow it"):
        ran("qnn", folder, "qnn", tmp_path / "rows.npz")


def test_what_misses_its_gate_is_not_published(tmp_path: Path) -> None:
    """8-bit weights keep the bundled tower's mean on pictures that calibrated nothing, and lose its worst row."""
    with pytest.raises(ParityError, match="miss the 128x128 qnn a16w8 gate"):
        export_vision(str(CHECKPOINT), tmp_path / "bundle", static=StaticChoice("128x128", "qnn", "a16w8"))
    assert not (tmp_path / "bundle").exists()
