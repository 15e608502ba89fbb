"""A vendor's toolchain that fails, ends without a word or cannot be installed gives one typed error; the real ones run
in `make npu`."""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import BundleError, InvalidInput, MissingExtra, Unavailable
from edge_runtime import Bundle, Encoder
from edge_runtime.tower.accelerators import coreml, rknn
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
facts = {"file": job["file"] + ".bin", "toolchain": {"made up": "1"}, "seconds": 0.5, "answering": 3.0}
json.dump(facts, open(job["result"], "w"))
"""
    )
    made = converted(tmp_path)
    assert made.file == tmp_path / "static_64x64.qnn.bin"
    assert (made.seconds, made.seconds_an_answer) == (0.5, 1.5)
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
    for target in set(environment.REQUIREMENTS) - {"mnn"}:  # which `make npu` measures
        assert target in PROVIDERS
        assert target in EXPORTED
    assert set(EXPORTED) <= set(BY_NAME)


@pytest.mark.parametrize("name", ["qnn", "openvino", "litert", "coreml"])
def test_a_runtime_that_is_not_installed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml, "PLATFORM", "darwin")
    found = find_provider(name)
    assert found is not None
    provider, device = found
    opening = Opening(tmp_path / "x.onnx", 0, "fp16", device, 1, False, tmp_path / "x.data")
    with pytest.raises(MissingExtra, match=rf"provider {name} needs an extra: pip install 'edge-vlm\[{name}\]'"):
        provider.open(opening)


def test_a_device_that_an_accelerator_has_not(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="openvino:NPU, openvino:GPU, openvino:CPU is allowed"):
        Encoder.from_bundle(bundle, provider="openvino:TPU")


RK3588S = "radxa,rock-5a\0rockchip,rk3588s\0"
# The calls of rknn-toolkit-lite2 2.5.0 that the device makes; the package itself has aarch64 wheels only.
STAND_IN = """
class RKNNLite:
    NPU_CORE_AUTO, NPU_CORE_0_1, NPU_CORE_0_1_2 = 0, 3, 7

    def load_rknn(self, path, key_path=None):
        self.text = open(path).read()
        return -1 if self.text == "damaged" else 0

    def init_runtime(self, target=None, device_id=None, async_mode=False, core_mask=0):
        self.core_mask = core_mask
        return -1 if self.text == "newer" else 0

    def inference(self, inputs, data_type=None, data_format=None, inputs_pass_through=None):
        if self.text == "hangs":
            return None
        (patches,) = inputs
        return [patches[:, :1] + self.core_mask, (patches[:, :1] * 2).astype("float16")]
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the kernel names a board's chip, an RK3588S."""
    path = tmp_path / "compatible"
    path.write_text(RK3588S)
    monkeypatch.setattr(rknn, "COMPATIBLE", path)
    return path


def rockchip(tmp_path: Path, chip: str, text: str = "") -> rknn.RockchipGraph:
    path = tmp_path / "static_64x64.rknn"
    path.write_text(text)
    return rknn.open_graph(Opening(path, 1, "fp16", "", 1, False, tmp_path / "x.data", chip))


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "lite" / "rknnlite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "api.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(package.parent)
    yield
    for name in ("rknnlite", "rknnlite.api"):
        sys.modules.pop(name, None)


def test_a_rockchip_file_runs_on_its_chip(board: Path, lite: None, tmp_path: Path) -> None:
    main, deep = rockchip(tmp_path, "rk3588").run(np.ones((1, 4, 8), np.float32))
    assert (main.shape, float(main[0, 0, 0]), float(deep[0, 0, 0])) == (
        (1, 1, 8),
        8.0,
        2.0,
    )  # 1 + the mask of three cores
    assert deep.dtype == np.float32


def test_a_rockchip_file_for_another_chip(board: Path, lite: None, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"for the rk3576, this board has the rk3588s: .*--target rknn --chip rk3588$"
    ):
        rockchip(tmp_path, "rk3576")


@pytest.mark.parametrize("text", ["brcm,bcm2712\0raspberrypi,5-model-b\0", None])
def test_a_machine_without_a_chip_of_rockchip(board: Path, lite: None, tmp_path: Path, text: str | None) -> None:
    board.unlink() if text is None else board.write_text(text)
    with pytest.raises(InvalidInput, match=r"boards with rk3588 or rk3576, and .*compatible names no chip of Rockchip"):
        rockchip(tmp_path, "rk3588")


def test_a_board_without_rockchips_runtime(board: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"provider rknn needs an extra: pip install 'edge-vlm\[rknn\]'"):
        rockchip(tmp_path, "rk3588")


@pytest.mark.parametrize(("text", "call"), [("damaged", "load_rknn"), ("newer", "init_runtime")])
def test_a_rockchip_file_that_does_not_open(board: Path, lite: None, tmp_path: Path, text: str, call: str) -> None:
    with pytest.raises(BundleError, match=rf"static_64x64\.rknn cannot be opened .*: {call} returned -1.*librknnrt"):
        rockchip(tmp_path, "rk3588", text)


def test_a_rockchip_npu_that_does_not_answer(board: Path, lite: None, tmp_path: Path) -> None:
    graph = rockchip(tmp_path, "rk3588", "hangs")
    with pytest.raises(Unavailable, match=r"the NPU did not answer with static_64x64\.rknn"):
        graph.run(np.ones((1, 4, 8), np.float32))


def test_core_ml_runs_on_a_mac_alone(tmp_path: Path) -> None:
    opening = Opening(tmp_path / "x.coreml.zip", 0, "fp16", "NE", 1, False, tmp_path / "x.data")
    with pytest.raises(InvalidInput, match="provider coreml runs on macOS 14 or newer, this machine has linux"):
        coreml.open_graph(opening)


# The calls of coremltools 9.0 that the device makes; the package itself predicts on macOS only.
CORE_ML = """
import enum
from coremltools import models
__version__ = "9.0"
ComputeUnit = enum.Enum("ComputeUnit", "ALL CPU_AND_GPU CPU_ONLY CPU_AND_NE")
"""
CORE_ML_MODEL = """
import pathlib
class MLModel:
    def __init__(self, model, compute_units):
        self.text = (pathlib.Path(model) / "text").read_text()
        if self.text == "damaged":
            raise RuntimeError("Error compiling model")
        self.units = compute_units
    def get_compiled_model_path(self):
        return self.text
    def predict(self, data):
        (patches,) = data.values()
        return {"deep0": patches[:, :1] * 2, "image": patches[:, :1] + self.units.value}
"""
CORE_ML_PLAN = """
from types import SimpleNamespace as Space
from coremltools.models.compute_device import MLCPUComputeDevice
class MLComputePlan:
    @classmethod
    def load_from_path(cls, path, compute_units):
        self = cls()
        operations = [Space(operator_name=f"ios17.{one}") for one in ["const", *path.split()]]
        block = Space(block=Space(operations=operations))
        self.model_structure = Space(program=Space(functions={"main": block}))
        return self
    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        if operation.operator_name == "ios17.const":
            return None
        on_cpu = operation.operator_name in ("ios17.cast", "ios17.topk")
        return Space(preferred_compute_device=MLCPUComputeDevice() if on_cpu else None)
"""


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "mac" / "coremltools"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text(CORE_ML)
    (package / "models" / "__init__.py").write_text(CORE_ML_MODEL)
    (package / "models" / "compute_device.py").write_text("class MLCPUComputeDevice: pass")
    (package / "models" / "compute_plan.py").write_text(CORE_ML_PLAN)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(coreml, "PLATFORM", "darwin")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "coremltools"]:
        del sys.modules[name]


def core_ml(tmp_path: Path, text: str, device: str = "NE", *, allow: bool = False) -> coreml.CoreMlGraph:
    path = tmp_path / "static_64x64.coreml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("static_64x64.mlpackage/text", text)
    return coreml.open_graph(Opening(path, 1, "fp16", device, 1, allow, tmp_path / "x.data"))


def test_a_core_ml_package_runs(mac: None, tmp_path: Path) -> None:
    patches = np.ones((1, 4, 8), np.float32)
    for device, unit in (("NE", 4), ("GPU", 2), ("CPU", 3)):
        main, deep = core_ml(tmp_path, "cast linear", device).run(patches)
        assert (main.shape, float(main[0, 0, 0]), float(deep[0, 0, 0])) == ((1, 1, 8), 1.0 + unit, 2.0)


def test_what_core_ml_leaves_on_the_processor_is_an_error(mac: None, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"coreml:NE leaves operations of static_64x64.* \(topk\): allow it"):
        core_ml(tmp_path, "cast linear topk topk")
    core_ml(tmp_path, "cast topk", allow=True)
    core_ml(tmp_path, "cast topk", "CPU")


def test_a_core_ml_package_that_does_not_open(mac: None, tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"static_64x64\.coreml\.zip cannot be opened by coremltools 9\.0: Error comp"
    ):
        core_ml(tmp_path, "damaged")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    opening = Opening(tmp_path / "broken.zip", 1, "fp16", "NE", 1, False, tmp_path / "x.data")
    with pytest.raises(BundleError, match="not a zip file"):
        coreml.open_graph(opening)
