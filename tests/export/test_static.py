"""Graphs of one picture size: they compute what the graph of every size computes, each compiler takes them, and what
it would refuse is named before it runs."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from contract.errors import BundleError, InvalidInput, ParityError
from contract.manifest import read_manifest
from contract.static_graph import MAX_PATCHES, TARGETS, WEIGHTS
from edge_runtime import Bundle
from edge_runtime.tower.still import is_still, still_rows
from export.families import qwen_static
from export.gate import parity
from export.gate.packs import pixels
from export.graph.data_file import DataFile
from export.graph.loop import write_graph
from export.source.checkpoint import Checkpoint
from export.static.choice import StaticChoice, StaticPlan
from export.static.frame import MAIN
from export.static.graph import INPUT, write_static_graph
from export.static.grid import grids_of
from export.static.layers import StaticLayers
from export.static.pictures import grid_pictures
from export.static.proof import GATES
from export.static.refusals import refusals, require_accepted
from export.static.target import BY_NAME
from export.targets import conversion
from export.vision import export_vision, main
from tests.export.outliers import make_loud
from tests.export.tiny_checkpoint import TOWER_72, write_checkpoint
from tests.families import qwen2_models

SIZES = {
    "three_levels": "64x96,128x128,32x320",
    "head_72": "64x96",
    "qwen2_vl": "56x84",
    "qwen2_5_vl": "224x224,140x196",
}
Edit = Callable[[onnx.ModelProto], Any]
# A toolchain that computes in float32, and counts the pictures.
WORKER = """
import json, sys
import numpy as np
import onnxruntime
job = json.load(open(sys.argv[1]))
held, session = np.load(job["pictures"]), onnxruntime.InferenceSession(job["graph"])
answers = [session.run(job["outputs"], {"patches": held[f"p{i}"]}) for i in range(len(held.files))]
np.savez(job["answers"], **{f"a{i}_{j}": rows for i, one in enumerate(answers) for j, rows in enumerate(one)})
toolchain = {"pictures": str(len(answers)), "calibrating": str(job["num_calibration"])}
file = job["file"] if job["precision"] == "int8" else None
if file:
    open(file, "w").close()
json.dump({"file": file, "toolchain": toolchain, "seconds": 2.0, "answering": 6.0}, open(job["result"], "w"))
"""


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    own = {"three_levels": checkpoint, "head_72": write_checkpoint(folder / "head_72", TOWER_72)}
    return own | {name: qwen2_models.write(name, folder / name) for name in qwen2_models.FAMILIES}


def written(model: Path, sizes: str, out: Path, **forms: bool) -> list[Path]:
    """The static graphs of a checkpoint."""
    checkpoint = Checkpoint(model)
    tower = checkpoint.family.tower(checkpoint.facts)
    read, paths = tower.reader(checkpoint.tower_tensor), []
    with DataFile(out / "static.onnx.data") as data:
        for grid in grids_of(sizes, tower):
            paths.append(out / f"static_{grid}.onnx")
            write_static_graph(checkpoint.family, tower, read, checkpoint.image, grid, paths[-1], data, **forms)
    return paths


def run(path: Path, **feeds: NDArray[Any]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("name", SIZES)
def test_it_computes_what_the_graph_of_every_size_does(models: dict[str, Path], name: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(models[name])
    tower = checkpoint.family.tower(checkpoint.facts)
    write_graph(
        checkpoint.family, tower, tower.reader(checkpoint.tower_tensor), checkpoint.image, tmp_path / "vision.onnx"
    )
    paths = written(models[name], SIZES[name], tmp_path)
    for path, grid in zip(paths, grids_of(SIZES[name], tower), strict=True):
        onnx.checker.check_model(path)
        thw = (1, grid.height, grid.width)
        patches = pixels(tower, (thw,), 3)
        assert is_still(patches)
        main, levels = run(tmp_path / "vision.onnx", patches=patches, grid_thw=np.array([thw], np.int64))
        got = run(path, **{INPUT: still_rows(patches)})
        assert len(got) == 1 + len(tower.taps)
        for expected, rows in zip([main, *levels], got, strict=True):
            assert parity.compare(name, MAIN, expected, rows[0]).passes(GATES["fp32"])


def test_graphs_share_their_weights_and_keep_the_profile(checkpoint: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder, sizes in ((alone, "64x96"), (together, "64x96,128x128")):
        folder.mkdir()
        written(checkpoint, sizes, folder)
    assert (alone / "static.onnx.data").read_bytes() == (together / "static.onnx.data").read_bytes()
    for path in together.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert (model.ir_version, [(one.domain, one.version) for one in model.opset_import]) == (8, [("", 17)])
        assert not model.functions
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("Softmax") == 4  # a block
        assert kinds.count("LayerNormalization") == 2 * 4 + 4
        assert "Gather" not in kinds
        (patches,) = model.graph.input
        assert patches.type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_takes_it_and_refuses_the_graph_of_every_size(
    models: dict[str, Path], target: str, tmp_path: Path
) -> None:
    forms = BY_NAME[target].forms
    for name in SIZES:
        for path in written(models[name], SIZES[name], tmp_path, **forms):
            require_accepted(onnx.load(path, load_external_data=False), BY_NAME[target])
    checkpoint = Checkpoint(models["three_levels"])
    tower = checkpoint.family.tower(checkpoint.facts)
    write_graph(checkpoint.family, tower, checkpoint.tower_tensor, checkpoint.image, tmp_path / "vision.onnx")
    with pytest.raises(BundleError, match=rf"^{target} refuses this tower's graph: .*edge_vlm"):
        require_accepted(onnx.load(tmp_path / "vision.onnx", load_external_data=False), BY_NAME[target])
    found = " ".join(refusals(onnx.load(tmp_path / "vision.onnx", load_external_data=False), BY_NAME[target]))
    assert "Loop: it makes a graph of unknown sizes" in found
    assert "'patches': its shape is ['num_patches', 1536]" in found


def test_onnxruntime_makes_one_operator_of_each_gelu(checkpoint: Path, tmp_path: Path) -> None:
    """In the form of --target onnx; in the other one it runs eight operators, and the graph is slower."""
    source, found = Checkpoint(checkpoint), dict[bool, list[str]]()
    tower = source.family.tower(source.facts)
    for is_factored in (True, False):
        folder = tmp_path / str(is_factored)
        folder.mkdir()
        with DataFile(folder / WEIGHTS) as data:
            (grid,) = grids_of("64x96", tower)
            path, read = folder / "static.onnx", source.tower_tensor
            write_static_graph(source.family, tower, read, source.image, grid, path, data, is_factored=is_factored)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(folder / "optimised.onnx", load_external_data=False)
        found[is_factored] = [node.op_type for node in optimised.graph.node]
    assert (found[True].count("FastGelu"), found[True].count("Tanh")) == (tower.depth, 0)
    assert (found[False].count("FastGelu"), found[False].count("Tanh")) == (0, tower.depth)


def test_hailo_refuses_the_error_function(checkpoint: Path, tmp_path: Path) -> None:
    (path,) = written(checkpoint, "64x96", tmp_path)
    with pytest.raises(BundleError, match=r"hailo refuses .*Erf: its parser calls it an unsupported activation"):
        require_accepted(onnx.load(path, load_external_data=False), BY_NAME["hailo"])


def opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def gather(model: onnx.ModelProto) -> None:
    node = model.graph.node[-1]
    node.output[0], last = "before", node.output[0]
    model.graph.initializer.append(helper.make_tensor("place", TensorProto.INT64, [1], [0]))
    model.graph.node.append(helper.make_node("Gather", ["before", "place"], [last], name="picked", axis=1))


def symbolic(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "patches"


def five(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("five", TensorProto.INT64, [5], [1, 1, 1, 24, 768]))
    model.graph.node.insert(0, helper.make_node("Reshape", ["patches", "five"], ["five_sides"], name="wide"))


def integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (opset, "opset 21: it takes 19 at most"),
        (custom, "com.microsoft.MatMul: the compiler knows standard operators only"),
        (gather, "'picked': Gather: a chip loses accuracy"),
        (symbolic, r"'patches': its shape is \[1, 'patches', 768\]"),
        (five, "'five_sides': it has 5 dimensions, 4 are allowed"),
        (integers, "'patches': its type is UINT8, FLOAT is expected"),
    ],
)
def test_what_a_target_refuses_is_named(checkpoint: Path, tmp_path: Path, edit: Edit, said: str) -> None:
    (path,) = written(checkpoint, "64x96", tmp_path)
    model = onnx.load(path, load_external_data=False)
    edit(model)
    with pytest.raises(BundleError, match=f"rknn refuses .*{said}"):
        require_accepted(model, BY_NAME["rknn"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": "448"}, "'448' is no size: give HEIGHTxWIDTH in pixels"),
        ({"sizes": "64x64,"}, "'' is no size"),
        ({"sizes": "0x64"}, "'0x64' is no size"),
        ({"sizes": "64x-64"}, "is no size"),
        ({"sizes": "48x64"}, "both sides must be multiples of 32, such as 64x64"),
        ({"sizes": "64x64,64x64"}, "names 64x64 twice"),
        ({"sizes": "8192x8192"}, f"at most {MAX_PATCHES} are allowed"),
        ({"sizes": "2048x1024"}, "the checkpoint's processor makes pictures of 1024 to 1048576"),
        ({"sizes": "64x64", "target": "tpu"}, "--target is 'tpu', onnx, "),
        ({"sizes": "64x64", "precision": "int8"}, "--target-precision is 'int8', onnx has fp32"),
        ({"sizes": "64x64", "chip": "x1"}, "--chip is 'x1', onnx has one file for all: leave --chip out"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(
    checkpoint: Path, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        export_vision(str(checkpoint), tmp_path / "out", static=StaticChoice(**options))
    assert not (tmp_path / "out").exists()


def test_an_option_without_sizes_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(checkpoint), str(tmp_path / "out"), "--target", "onnx"]) == 2
    assert "--target is 'onnx' without --static" in capsys.readouterr().err


def test_tiles_have_no_static_graph(checkpoint: Path) -> None:
    source = Checkpoint(checkpoint)
    tower = replace(source.family.tower(source.facts), fixed_side=8)
    with pytest.raises(InvalidInput, match="cuts pictures into tiles of one size"):
        StaticPlan.of(StaticChoice("64x64"), tower, source.image)


@pytest.mark.usefixtures("few_packs")
def test_a_bundle_holds_them_beside_the_graph_of_every_size(checkpoint: Path, tmp_path: Path) -> None:
    without = export_vision(str(checkpoint), tmp_path / "without")
    made = export_vision(str(checkpoint), tmp_path / "with", static=StaticChoice("64x96,128x128"))
    assert made.fingerprint == without.fingerprint
    before, after = (read_manifest(tmp_path / name) for name in ("without", "with"))
    assert "static" not in json.loads((tmp_path / "without" / "manifest.json").read_text())
    assert before.files.items() <= after.files.items()  # the graph of every size keeps its bytes
    assert after.files.keys() - before.files.keys() == {"static.onnx.data", "static_64x96.onnx", "static_128x128.onnx"}
    assert [(graph.grid_thw, graph.file, graph.target) for graph in after.static] == [
        ((1, 4, 6), "static_64x96.onnx", "onnx"),
        ((1, 8, 8), "static_128x128.onnx", "onnx"),
    ]
    for graph in after.static:
        assert graph.figures["centred_mean_cosine"] >= 0.999
        assert graph.figures["largest_residual"] > 0
    assert Bundle.load(tmp_path / "with").manifest == after


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize(("precision", "asked", "calibrating"), [("fp16", 4, 0), ("int8", 16, 12)])
def test_a_toolchain_answers_no_more_pictures_than_the_gate_needs(
    checkpoint: Path, tmp_path: Path, precision: str, asked: int, calibrating: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real ones take up to minutes a picture."""
    (tmp_path / "openvino_worker.py").write_text(WORKER)
    monkeypatch.setattr(conversion, "WORKERS", tmp_path)
    monkeypatch.setattr(conversion, "python_for", lambda target, note: Path(sys.executable))
    export_vision(str(checkpoint), tmp_path / "out", static=StaticChoice("64x96", "openvino", precision))
    (graph,) = read_manifest(tmp_path / "out").static
    assert graph.toolchain == {"pictures": str(asked), "calibrating": str(calibrating)}
    assert (graph.figures["seconds"], graph.figures["seconds_an_answer"]) == (2.0, round(6 / asked, 2))


@pytest.mark.usefixtures("few_packs")
def test_hailo_gets_a_graph_without_the_error_function(checkpoint: Path, tmp_path: Path) -> None:
    """Its gelu is the approximate one, which no fp32 gate takes for the exact one."""
    export_vision(str(checkpoint), tmp_path / "out", static=StaticChoice("64x96", "hailo"))
    (graph,) = read_manifest(tmp_path / "out").static
    model = onnx.load(tmp_path / "out" / graph.file, load_external_data=False)
    assert "Erf" not in {node.op_type for node in model.graph.node}
    assert 1e-4 < graph.figures["max_relative_error"] < 1e-2
    assert graph.figures["centred_min_cosine"] > 0.99999


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize("fault", ["order", "angles", "scale"])
def test_a_wrong_graph_is_not_published(
    checkpoint: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = qwen_static.frame_constants

    def changed(*given: Any) -> dict[str, NDArray[np.float32]]:
        found = constants(*given)
        if fault == "order":
            found["positions"] = found["positions"].reshape(4, 3, 2, -1).swapaxes(1, 2).reshape(24, -1)
        if fault == "angles":
            found["cosines"] = found["cosines"][:, ::-1].copy()
        return found

    monkeypatch.setattr(qwen_static, "frame_constants", changed)
    if fault == "scale":
        product = StaticLayers.product

        def unscaled(
            self: StaticLayers, rows: str, name: str, weight: Any, bias: Any, output: str | None = None
        ) -> str:
            factor = np.float32(2 if name == "blocks.3.attn.query" else 1)
            return product(self, rows, name, lambda: weight() * factor, bias, output)

        monkeypatch.setattr(StaticLayers, "product", unscaled)
    with pytest.raises(ParityError, match="miss the static 64x96 gate"):
        export_vision(str(checkpoint), tmp_path / "out", static=StaticChoice("64x96"))
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "out.parity-failed.json").read_text())["precision"] == "static 64x96"


def test_a_plan_counts_them(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(checkpoint), str(tmp_path / "out"), "--dry-run", "--json"]
    assert main(words) == main([*words, "--static", "64x96"]) == 0
    plans = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert plans[1]["bundle_bytes"] - plans[0]["bundle_bytes"] == plans[0]["tower_fp32_bytes"]
    assert plans[1]["costs"]["static"] > 0


def test_loud_channels_hide_an_error_from_the_plain_cosine(tmp_path: Path) -> None:
    """A few channels that are loud in every row make the plain cosine 1, whatever the others are."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, 32)).astype(np.float32)
    rows[:, [3, 17]] += (12_000.0, -8_000.0)
    other = rng.standard_normal((64, 32)).astype(np.float32)
    other[:, [3, 17]] += (12_000.0, -8_000.0)
    row = parity.compare("noise", MAIN, rows, other)
    assert row.mean_cosine == pytest.approx(1, abs=1e-6)
    assert row.centred_mean_cosine == pytest.approx(0, abs=0.1)
    plain, centred = (replace(GATES["fp16"], is_centred=is_centred) for is_centred in (False, True))
    assert row.passes(plain)
    assert not row.passes(centred)
    assert float(parity.line([row]).split()[-2]) > 0.5  # worst row of 1 - centred cosine, beside the plain one
    one = parity.compare("one row", MAIN, rows[:1], rows[:1])
    assert one.centred_mean_cosine is None
    assert parity.line([one]).split()[-2] == "-"  # a single row is its own mean


@pytest.mark.usefixtures("few_packs")
def test_the_largest_residual_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_checkpoint(tmp_path / "model")
    quiet, loud = tmp_path / "quiet", tmp_path / "loud"
    for out in (quiet, loud):
        assert main([str(model), str(out), "--static", "64x96"]) == 0
        make_loud(model, "mid")
    first, second = (read_manifest(out).static[0].figures["largest_residual"] for out in (quiet, loud))
    assert second > 2 * first
    assert "64x96 onnx fp32" in capsys.readouterr().out


def test_the_gate_of_an_accelerator_measures_on_pictures_that_calibrated_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = Checkpoint(checkpoint)
    (grid,) = grids_of("64x96", source.family.tower(source.facts))
    for number in range(9):
        Image.new("RGB", (200 + number, 100), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
    for folder, counts in ((None, (12, 4)), (tmp_path, (7, 2))):
        found = grid_pictures(folder, source.image, source.card, grid)
        assert (len(found.calibrating), len(found.held_out)) == counts
        assert {one.shape for one in (*found.calibrating, *found.held_out)} == {(24, 1536)}
        assert not {one.tobytes() for one in found.calibrating} & {one.tobytes() for one in found.held_out}
    for number in range(3, 9):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(InvalidInput, match="with 3 pictures: graphs of one size need 4 at least"):
        grid_pictures(tmp_path, source.image, source.card, grid)
