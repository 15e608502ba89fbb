"""Lower precisions: each under its gate on towers with and without loud channels, through the runtime, byte for byte."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidInput
from contract.manifest import PRECISIONS, read_manifest
from edge_runtime import Encoder
from edge_runtime.items.item import Item
from export import families
from export.gate import parity
from export.gate.oracle import Oracle
from export.gate.packs import Pack, pixels
from export.graph.loop import write_graph
from export.graph.quantise import BLOCK, int4_blocks, int8_columns
from export.integers import balance
from export.integers.mixing import Mixing
from export.integers.rotation import Rotation
from export.integers.sensitivity import half_layers
from export.precision import BY_NAME
from export.source.checkpoint import Checkpoint
from export.vision import export_vision, main
from tests.export.outliers import make_loud
from tests.export.tiny_checkpoint import write_checkpoint

TOWER = {  # wide enough for loud channels to be few
    "depth": 4,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_heads": 4,
    "deepstack_visual_indexes": [0, 2, 3],
    "num_position_embeddings": 576,
}
PACKS: tuple[Pack, ...] = (((1, 2, 2),), ((1, 16, 12),), ((1, 6, 10), (2, 4, 8)), ((1, 30, 16),))
Read = Callable[[str], NDArray[np.float32]]


class Loud:
    """One checkpoint with loud channels, its oracle, and graphs of it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = write_checkpoint(folder / kind, TOWER)
        make_loud(self.folder, kind)
        self.source, self.graph = Checkpoint(self.folder), folder / f"{kind}.onnx"
        self.tower = families.tower(self.source.config)
        self.oracle = Oracle(
            self.source.config, self.source.image, list(self.source.tower_shapes), self.source.tower_tensor
        )
        batches = [(pixels(self.tower, pack, 90), np.array(pack)) for pack in PACKS[1:3]]
        peaks = self.oracle.input_peaks(balance.balanced_layers(self.tower), batches)
        self.factors = balance.factors(peaks, self.source.tower_tensor)
        self.read: Read = balance.divided(Rotation(self.tower, self.source.tower_tensor), self.factors)
        self.prepared = Oracle(self.source.config, self.source.image, list(self.source.tower_shapes), self.read)
        self.prepared.multiply_inputs(self.factors)
        self.half = half_layers(self.tower, self.prepared, batches[0])

    def rows(self, precision: str, *, is_prepared: bool = True, use_kernels: bool = False) -> list[parity.Row]:
        read, factors = (self.read, self.factors) if is_prepared else (self.source.tower_tensor, {})
        half = self.half if is_prepared else ()
        write_graph(
            families.find(self.source.config["model_type"]),
            self.tower,
            read,
            self.source.image,
            self.graph,
            BY_NAME[precision].linear,
            factors,
            half,
        )
        expected = parity.answers(self.tower, self.oracle, PACKS)
        return parity.measure(self.graph, self.tower, expected, PACKS, use_kernels=use_kernels)


@pytest.fixture(scope="module")
def mid(tmp_path_factory: pytest.TempPathFactory) -> Loud:
    return Loud(tmp_path_factory.mktemp("loud"), "mid")


@pytest.fixture(scope="module")
def harsh(tmp_path_factory: pytest.TempPathFactory) -> Loud:
    return Loud(tmp_path_factory.mktemp("loud"), "harsh")


def worst_mean(rows: list[parity.Row]) -> float:
    return min(row.mean_cosine or -1 for row in rows)


@pytest.mark.parametrize("size", [64, 72, 75, 1152])
def test_the_mixing_matrix(size: int) -> None:
    matrix = Mixing(size)(np.eye(size))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-11)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-11)
    assert np.abs(matrix).max() < 6 / np.sqrt(size)


def test_the_rotated_and_balanced_tower_is_the_same_in_fp32(mid: Loud) -> None:
    assert any((factor != 1).any() for factor in mid.factors.values())
    rows = mid.rows("fp32")
    assert all(row.passes(BY_NAME["fp32"].gate) for row in rows)
    assert max(row.relative_error or 1 for row in rows) < 3e-5


def test_the_rotated_tower_in_the_originals_own_code(mid: Loud) -> None:
    rotated = Oracle(
        mid.source.config, mid.source.image, list(mid.source.tower_shapes), Rotation(mid.tower, mid.source.tower_tensor)
    )
    values, grid = pixels(mid.tower, PACKS[2], 5), np.array(PACKS[2])
    expected, got = mid.oracle(values, grid), rotated(values, grid)
    for name, rows in expected.items():
        np.testing.assert_allclose(got[name], rows, atol=3e-5 * float(np.abs(rows).max()))


def test_a_rotation_that_moves_the_mean_is_found(mid: Loud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The all-ones direction must stay: a LayerNorm subtracts the mean."""
    rotation, flips = mid.read.__closure__[1].cell_contents, np.array([-1.0, *[1.0] * 255])  # type: ignore[index]
    monkeypatch.setattr(rotation, "_stream", lambda values: flips[:, None] * values)
    assert not any(row.passes(BY_NAME["fp32"].gate) for row in mid.rows("fp32"))


@pytest.mark.parametrize("use_kernels", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_gate_holds_with_loud_channels(mid: Loud, precision: str, use_kernels: bool) -> None:
    assert all(row.passes(BY_NAME[precision].gate) for row in mid.rows(precision, use_kernels=use_kernels))


def test_preparation_takes_error_away(mid: Loud) -> None:
    prepared, plain = worst_mean(mid.rows("int8")), worst_mean(mid.rows("int8", is_prepared=False))
    assert 1 - prepared < 0.8 * (1 - plain)


def test_harsh_channels(harsh: Loud) -> None:
    assert worst_mean(harsh.rows("int8")) >= 0.999
    assert worst_mean(harsh.rows("int8", is_prepared=False)) < worst_mean(harsh.rows("int8"))


def test_the_prepared_tower_is_the_same_before_it_is_rounded(mid: Loud) -> None:
    values, grid = pixels(mid.tower, PACKS[2], 5), np.array(PACKS[2])
    expected, got = mid.oracle(values, grid), mid.prepared(values, grid)
    for name, rows in expected.items():
        np.testing.assert_allclose(got[name], rows, atol=3e-5 * float(np.abs(rows).max()))


def test_the_block_that_costs_most_is_kept(mid: Loud) -> None:
    assert len(mid.half) == 2
    assert mid.half[0] == "blocks.0."
    assert mid.half[1].endswith(".linear_fc2")

    def read(name: str) -> NDArray[np.float32]:
        values = mid.read(name)
        if name == "blocks.2.mlp.linear_fc2.weight":
            values = values.copy()
            values[:, 5] *= 40  # one input that outshouts the others of its row
        return values

    loud = Oracle(mid.source.config, mid.source.image, list(mid.source.tower_shapes), read)
    loud.multiply_inputs(mid.factors)
    batch = (pixels(mid.tower, PACKS[1], 90), np.array(PACKS[1]))
    assert half_layers(mid.tower, loud, batch)[0] == "blocks.2."


def test_half_layers_take_error_away(mid: Loud, harsh: Loud) -> None:
    for loud in (mid, harsh):
        write_graph(
            families.find(loud.source.config["model_type"]),
            loud.tower,
            loud.read,
            loud.source.image,
            loud.graph,
            BY_NAME["int8"].linear,
            loud.factors,
        )
        rows = parity.measure(loud.graph, loud.tower, parity.answers(loud.tower, loud.oracle, PACKS), PACKS)
        assert 1 - worst_mean(loud.rows("int8")) < 1 - worst_mean(rows)


def test_int8_steps() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40), dtype=np.float32)
    weight[2] = 0
    values, steps = int8_columns(weight)
    assert values.shape == (40, 6)
    assert np.abs(values.T * steps[:, None] - weight).max() <= np.abs(weight).max() / 127 / 2 + 1e-6


def test_int4_blocks_can_be_read_back() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 2 * BLOCK + 12), dtype=np.float32)
    packed, steps, zeros = int4_blocks(weight)
    assert packed.shape == (6, 3, BLOCK // 2)
    assert zeros.shape == (6, 2)
    values = np.stack([packed & 15, packed >> 4], -1).reshape(6, 3, BLOCK).astype(np.float32)
    zero = np.stack([zeros & 15, zeros >> 4], -1).reshape(6, 4)[:, :3, None]
    back = ((values - zero) * steps[..., None]).reshape(6, -1)[:, : weight.shape[1]]
    assert np.corrcoef(back.ravel(), weight.ravel())[0, 1] > 0.99


@pytest.mark.usefixtures("few_packs")
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_bundle_is_reproducible_and_runs(checkpoint: Path, sharded: Path, tmp_path: Path, precision: str) -> None:
    for source, name in ((checkpoint, "a"), (sharded, "b")):
        export_vision(str(source), tmp_path / name, precision)
    first, second = read_manifest(tmp_path / "a"), read_manifest(tmp_path / "b")
    assert first == second
    assert first.precision == precision
    assert bool(first.quantisation) == precision.startswith("int")
    assert first.card.encoder_fingerprint == Checkpoint(checkpoint).fingerprint
    item = Item(np.zeros((48, 1536), np.uint8), (2, 4, 6))
    embeddings = Encoder.from_bundle(tmp_path / "a").encode([item])
    assert embeddings.image_embeds.shape == (12, 48)
    assert embeddings.deepstack_embeds.shape == (3, 12, 48)
    assert np.isfinite(embeddings.image_embeds).all()


def processors() -> dict[str, dict[str, str]]:
    """Environments in which numpy, its BLAS and torch compute as on other processors, or with other numbers of threads."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    dispatched = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return {
        "one thread": dict.fromkeys(variables, "1"),
        "two threads": dict.fromkeys(variables, "2") | {"OPENBLAS_CORETYPE": "Haswell"},
        "an old one": {
            "OPENBLAS_CORETYPE": "Prescott",
            "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched),
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_CBWR": "COMPATIBLE",
        },
    }


def test_the_mixing_is_the_same_to_the_last_bit_where_a_product_is_not() -> None:
    code = """
import hashlib
import numpy as np
from export.integers.mixing import Mixing
values, mixing = np.random.default_rng(0).standard_normal((1152, 96)), Mixing(1152)
for mixed in (mixing(values), mixing(np.eye(1152)) @ values):
    print(hashlib.sha256(mixed).hexdigest())
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | settings, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.split()
        for settings in processors().values()
    ]
    mixed, multiplied = zip(*told, strict=True)
    assert len(set(mixed)) == 1
    if platform.machine() == "x86_64":  # elsewhere these settings may change nothing
        assert len(set(multiplied)) > 1


def test_what_is_measured_does_not_follow_the_processor(checkpoint: Path) -> None:
    """In float32 the peaks differ by 1e-7, and one factor of a large tower would move in some thirty exports."""
    code = """
import sys
from pathlib import Path
import numpy as np
from export.integers import balance
from export.integers import calibration
from export.source.checkpoint import Checkpoint
from export.gate.oracle import Oracle
from export import families
source = Checkpoint(Path(sys.argv[1]))
oracle = Oracle(source.config, source.image, list(source.tower_shapes), source.tower_tensor)
pictures = list(calibration.batches(None, source.image, source.card))[:1]
peaks = oracle.input_peaks(balance.balanced_layers(families.tower(source.config)), pictures)
sys.stdout.buffer.write(np.concatenate(list(peaks.values())).tobytes())
"""
    first, *others = (
        np.frombuffer(subprocess.check_output([sys.executable, "-c", code, checkpoint], env=os.environ | settings))
        for settings in processors().values()
    )
    assert len(first) == 4 * 144 + 4 * 256
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-11, atol=1e-300)


def test_threads_and_processors_give_the_same_bytes(tmp_path: Path) -> None:
    """The bundled model in int8; the pictures' peaks are torch's, all that is made of them is the same to the last bit."""
    code = """
import sys
from pathlib import Path
from export import vision
from export.gate import packs
packs.ALWAYS, packs.BUDGET_FLOP = packs.ALWAYS[1:3], 0
packs.SPLIT, packs.LARGEST = ((1, 4, 2),), ((1, 4, 4),)
vision.export_vision("models/tiny", Path(sys.argv[1]), "int8")
"""
    for name, settings in processors().items():
        subprocess.run([sys.executable, "-c", code, tmp_path / name], env=os.environ | settings, check=True)
    first, *others = (read_manifest(tmp_path / name) for name in processors())
    for other in others:
        for name in ("vision.onnx", "vision.onnx.data"):
            assert first.files[name] == other.files[name]
        assert first.card.encoder_fingerprint == other.card.encoder_fingerprint
        assert first.quantisation == other.quantisation


@pytest.mark.usefixtures("few_packs")
def test_calibration_on_pictures(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "pictures" / "noise.png")
    command = [str(checkpoint), str(tmp_path / "edge"), "--precision", "int8", "--json"]
    assert main([*command, "--calibration", str(tmp_path / "pictures")]) == 0
    printed = capsys.readouterr().out
    assert f"calibration on {tmp_path / 'pictures'}" in printed
    quantisation = read_manifest(tmp_path / "edge").quantisation
    assert quantisation["calibration"]["source"] == "folder"
    assert quantisation["calibration"]["pictures"] == 1
    assert len(quantisation["kept_fp16"]) == 2
    assert json.loads(printed.splitlines()[-1])["precision"] == "int8"
    data = (tmp_path / "edge" / "vision.onnx.data").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "edge" / "vision.onnx.data").read_bytes() != data


def test_calibration_that_cannot_be_used(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        export_vision(str(checkpoint), tmp_path / "edge", calibration=tmp_path / "none")
    with pytest.raises(InvalidInput, match="no folder"):
        export_vision(str(checkpoint), tmp_path / "edge", "int8", calibration=tmp_path / "none")
    with pytest.raises(InvalidInput, match="without pictures"):
        export_vision(str(checkpoint), tmp_path / "edge", "int8", calibration=tmp_path)
    (tmp_path / "cut.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match=r"cut\.png cannot be read"):
        export_vision(str(checkpoint), tmp_path / "edge", "int8", calibration=tmp_path)
    assert not (tmp_path / "edge").exists()
