"""Bundles of real-layout checkpoints: parity, files, bytes, and what a failing gate leaves behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.inliner import inline_local_functions

from contract.errors import BundleError
from contract.manifest import PRECISIONS, read_manifest
from edge_runtime import Encoder
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from export.gate import packs
from export.graph import layers
from export.graph.data_file import ALIGNMENT
from export.precision import BY_NAME
from export.vision import export_vision, main
from tests.export.tiny_checkpoint import change_json, change_token_ids


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle made as a user makes it, and what the command printed."""
    out = tmp_path_factory.mktemp("bundle") / "edge"
    command = [sys.executable, "-m", "export.vision", str(checkpoint), str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def bundle(exported: tuple[Path, str]) -> Path:
    return exported[0]


def test_every_output_passes_on_every_pack(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert len({row["pack"] for row in manifest.parity}) >= 28
    outputs = {row["output"] for row in manifest.parity}
    assert outputs == {"image_embeds", *(f"deepstack_embeds[{i}]" for i in range(3))}
    assert max(row["relative_error"] for row in manifest.parity) < 2e-5
    assert min(row["min_cosine"] for row in manifest.parity) > 0.9999999999
    names = " ".join(row["pack"] for row in manifest.parity)
    for pack in ("1x2x2", "1x96x64", "8x24x24", "1x50x38", "1x2x4 + 3x6x6 + 1x10x14 + 2x4x12"):
        assert pack in names


def test_head_dim_72_without_deepstack(no_levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "BUDGET_FLOP", 0)
    result = export_vision(str(no_levels), tmp_path / "edge")
    assert result.parity["max_relative_error"] < 2e-5
    session = onnxruntime.InferenceSession(tmp_path / "edge" / "vision.onnx")
    feeds = {"patches": np.zeros((48, 1536), np.uint8), "grid_thw": np.array([[2, 4, 6]])}
    main_rows, deepstack = session.run(["image_embeds", "deepstack_embeds"], feeds)
    assert main_rows.shape == (12, 48)
    assert deepstack.shape == (0, 12, 48)


@pytest.mark.usefixtures("few_packs")
def test_moe_family(checkpoint: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    change_json(model / "config.json", model_type="qwen3_vl_moe", vision_config__model_type="qwen3_vl_moe_vision")
    export_vision(str(model), tmp_path / "edge")
    assert read_manifest(tmp_path / "edge").card.family == "qwen3_vl_moe"


@pytest.mark.usefixtures("few_packs")
def test_another_normalisation(checkpoint: Path, tmp_path: Path) -> None:
    """That of CLIP, which differs by channel; pictures and videos alike, or not at all."""
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    statistics = {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}
    change_json(model / "preprocessor_config.json", **statistics)
    with pytest.raises(BundleError, match=r"0\.269.*normalises both alike"):
        export_vision(str(model), tmp_path / "edge")
    change_json(model / "video_preprocessor_config.json", **statistics)
    assert export_vision(str(model), tmp_path / "edge").parity["max_relative_error"] < 2e-5


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"])
def test_the_next_family(no_levels: Path, tmp_path: Path, family: str) -> None:
    """No word of deepstack in the config, other token ids; transformers' own class of that family is the oracle."""
    model = Path(shutil.copytree(no_levels, tmp_path / "model"))
    change_token_ids(model)
    changes = {"model_type": family, "vision_config__model_type": f"{family}_vision"}
    change_json(model / "config.json", **changes, vision_config__deepstack_visual_indexes=None)
    result = export_vision(str(model), tmp_path / "edge")
    assert result.parity["max_relative_error"] < 2e-5
    bundle = Bundle.load(tmp_path / "edge")
    assert (bundle.manifest.card.family, bundle.manifest.card.num_deepstack_levels) == (family, 0)
    assert bundle.token(bundle.manifest.card.image_token_id) == "<|image_pad|>"
    embeddings = Encoder.from_bundle(bundle).encode([Item(np.zeros((24, 1536), np.uint8), (1, 4, 6))])
    assert embeddings.image_embeds.shape == (6, 48)
    assert embeddings.deepstack_embeds.shape == (0, 6, 48)


def test_a_family_with_deepstack_must_say_where(no_levels: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(no_levels, tmp_path / "model"))
    change_json(model / "config.json", vision_config__deepstack_visual_indexes=None)
    with pytest.raises(BundleError, match="no key 'deepstack_visual_indexes'"):
        export_vision(str(model), tmp_path / "edge")


def test_manifest_holds_what_the_device_needs(bundle: Path, checkpoint: Path) -> None:
    manifest = read_manifest(bundle)
    card = manifest.card
    assert (card.hidden_size, card.num_deepstack_levels, card.image_token_id, card.merge_size) == (48, 3, 489, 2)
    assert (manifest.image.max_pixels, manifest.video.fps, manifest.precision) == (1 << 20, 2.0, "fp32")
    assert manifest.has_outer_video_wrapper
    assert set(manifest.libraries) == {"torch", "transformers", "onnx", "onnxruntime"}
    names = ("vision.onnx", "vision.onnx.data", "parity.png")
    assert set(manifest.files) == {*names, "tokenizer.json", "chat_template.jinja"}
    assert (bundle / "tokenizer.json").read_bytes() == (checkpoint / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["vision.onnx", "vision.onnx.data", "tokenizer.json"])
def test_a_changed_byte_is_found(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match="BLAKE3"):
        read_manifest(copy)


def test_graph_is_valid_mappable_and_fused(bundle: Path) -> None:
    onnx.checker.check_model(bundle / "vision.onnx")
    model = onnx.load(bundle / "vision.onnx", load_external_data=False)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    stored = [*model.graph.initializer, *loop.attribute[0].g.initializer]
    entries = [entry for tensor in stored for entry in tensor.external_data]
    offsets = [int(entry.value) for entry in entries if entry.key == "offset"]
    assert len(offsets) > 20
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    kinds = [node.op_type for node in loop.attribute[0].g.node]
    for fused in ("FrameAttention32", "NormLinear32", "LinearAdd32", "NormMlpAdd32"):
        assert kinds.count(fused) == 4
    (loop,) = (node for node in inline_local_functions(model).graph.node if node.op_type == "Loop")
    kinds = [node.op_type for node in loop.attribute[0].g.node]
    assert kinds.count("MultiHeadAttention") == 4
    assert kinds.count("RotaryEmbedding") == 8
    assert "Softmax" not in kinds


@pytest.mark.usefixtures("few_packs")
def test_same_checkpoint_same_bytes(bundle: Path, sharded: Path, tmp_path: Path) -> None:
    export_vision(str(sharded), tmp_path / "edge")  # the same weights in another layout
    for name in ("vision.onnx", "vision.onnx.data"):
        assert (tmp_path / "edge" / name).read_bytes() == (bundle / name).read_bytes()


def test_a_pack_equals_its_items_alone(bundle: Path) -> None:
    session = onnxruntime.InferenceSession(bundle / "vision.onnx")
    grid = np.array([[3, 20, 28], [1, 2, 6], [2, 8, 4]])  # the first is cut into groups of one frame
    ends = np.cumsum(grid.prod(1))
    values = np.random.default_rng(0).integers(0, 256, (ends[-1], 1536), np.uint8)
    names = ["image_embeds", "deepstack_embeds"]
    rows, levels = session.run(names, {"patches": values, "grid_thw": grid})
    for item, end, start in zip(grid, ends, np.r_[0, ends], strict=False):
        alone = session.run(names, {"patches": values[start:end], "grid_thw": item[None]})
        np.testing.assert_allclose(rows[start // 4 : end // 4], alone[0], atol=2e-5)
        np.testing.assert_allclose(levels[:, start // 4 : end // 4], alone[1], atol=2e-5)


def test_empty_and_contradictory_packs(bundle: Path) -> None:
    session = onnxruntime.InferenceSession(bundle / "vision.onnx")

    def run(patches: int, *grid: tuple[int, int, int]) -> list[np.ndarray]:
        items = np.array(grid, np.int64).reshape(-1, 3)
        return session.run(None, {"patches": np.zeros((patches, 1536), np.uint8), "grid_thw": items})

    assert [out.shape for out in run(0)] == [(0, 48), (3, 0, 48)]
    for patches in (12, 20):
        with pytest.raises(Exception, match="reshaped"):
            run(patches, (1, 4, 4))


_norm = layers.Layers.norm


def _norm_of_another_epsilon(self: layers.Layers, rows: str, name: str, epsilon: float | None = None) -> str:
    return _norm(self, rows, name, 1e-3)


@pytest.mark.usefixtures("few_packs")
def test_a_failing_gate_publishes_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "edge", tmp_path / "edge.parity-failed.json"
    with monkeypatch.context() as wrong:
        wrong.setattr(layers.Layers, "norm", _norm_of_another_epsilon)
        assert main([str(checkpoint), str(out)]) == 1
    assert "miss the fp32 gate" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [report.name]
    rows = json.loads(report.read_text())["rows"]
    assert len(rows) == 5 * 4 + 2  # two packs as far as the first level
    assert max(row["relative_error"] for row in rows) > 1e-4

    assert main([str(checkpoint), str(out)]) == 0
    assert not report.exists()
    before = read_manifest(out)
    monkeypatch.setattr(layers.Layers, "norm", _norm_of_another_epsilon)
    assert main([str(checkpoint), str(out)]) == 1
    assert read_manifest(out) == before  # an earlier bundle stays


def test_every_precision_has_a_gate() -> None:
    assert set(BY_NAME) == set(PRECISIONS)


def test_command_line_ends_in_json(exported: tuple[Path, str]) -> None:
    bundle, printed = exported
    result = json.loads(printed.splitlines()[-1])
    assert result["bundle"] == str(bundle)
    assert result["fingerprint"] == read_manifest(bundle).card.encoder_fingerprint
    assert result["nodes"] > 100
    assert result["parity"]["packs"] >= 28
    assert "1x96x64" in printed


def test_command_line_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("error: MODEL is nowhere, a folder or a hub id")
