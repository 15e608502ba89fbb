"""Each tile family in each precision, and InternVL's tower of 6B: published behind its gate, and near float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from contract.errors import BundleError, ParityError
from contract.manifest import read_manifest
from edge_runtime import Encoder, Pipeline
from edge_runtime.tower.session_options import session_options
from export import families as export_families
from export.gate.packs import pixels
from export.graph.linear import FP32, Linear
from export.graph.loop import write_graph
from export.graph.tower import Read
from export.integers.rotation import Rotation
from export.precision import precision_named
from export.source.checkpoint import Checkpoint
from export.vision import export_vision
from tests.families.models import ALL, picture, write
from tests.families.served import Served, messages

LEAST = {"fp16": 0.9999, "bf16": 0.999, "int8": 0.99, "int4": 0.8}
LARGE = {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}


@pytest.mark.parametrize("precision", LEAST if ALL else ["int8"])
def test_a_precision_is_near_float32_or_is_refused(served: Served, precision: str, tmp_path: Path) -> None:
    """The tiny towers are noisier than real ones: an integer precision may miss its gate, which then publishes nothing."""
    out, refusal = tmp_path / "bundle", ""
    try:
        export_vision(str(served.model), out, precision)
    except ParityError as error:
        refusal = str(error)
    if refusal:
        assert precision in ("int8", "int4"), refusal
        assert "miss the" in refusal
        assert not out.exists()
        return
    asked = messages([[picture(200, 60, 3), "What?"]])
    ours = Pipeline(Encoder.from_bundle(out)).request(asked).items[0].main
    whole = served.pipeline.request(asked).items[0].main
    cosines = (ours * whole).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(whole, axis=1)
    assert cosines.min() >= LEAST[precision]
    assert read_manifest(out).precision == precision


ROTATED = {  # families without a norm before the first block, and the tower of 6B
    "llava_onevision": {},
    "smolvlm": {},
    "internvl": {},
    "internvl 6B": LARGE,
}


@dataclass(frozen=True)
class Drawn:
    """A family's tower with some channels louder than others, as real towers have them, and tiles for it."""

    family: Any
    tower: Any
    image: Any
    read: Read

    def rows(self, read: Read, folder: Path, linear: Linear = FP32) -> Any:
        """The rows that a graph of these weights gives, float32 (N, H)."""
        write_graph(self.family, self.tower, read, self.image, folder / "vision.onnx", linear)
        session = onnxruntime.InferenceSession(folder / "vision.onnx", session_options(1))
        grid = (3, self.tower.side, self.tower.side)
        feeds = {"patches": pixels(self.tower, (grid,), 1), "grid_thw": np.array([grid], np.int64)}
        return session.run(["image_embeds"], feeds)[0]


def drawn(name: str, folder: Path) -> Drawn:
    source = Checkpoint(write(name.split()[0], folder / "model", **ROTATED[name]))
    family = export_families.find(source.card.family)
    tower = family.tower(source.config)
    plain, loud = tower.reader(source.tower_tensor), np.ones(tower.hidden_size, np.float32)
    loud[:: tower.hidden_size // 3] = 12

    def read(name: str) -> Any:
        owner, _, kind = name.rpartition(".")
        behind = owner.endswith(("attn.qkv", "mlp.linear_fc1")) and owner.startswith("blocks.") and kind == "weight"
        is_loud = owner.endswith(("norm1", "norm2")) or owner == "pos_embed"
        return plain(name) * loud if is_loud else plain(name) / loud if behind else plain(name)

    return Drawn(family, tower, source.image, read)


def error(found: Any, expected: Any) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_tower_is_the_same_tower(name: str, tmp_path: Path) -> None:
    """Exact but for the order of sums, and better in eight bits where channels are loud."""
    made = drawn(name, tmp_path)
    rotation, int8 = Rotation(made.tower, made.read), precision_named("int8").linear
    expected = made.rows(made.read, tmp_path)
    assert error(made.rows(rotation, tmp_path), expected) < 1e-5
    plain, turned = (error(made.rows(read, tmp_path, int8), expected) for read in (made.read, rotation))
    assert turned < 0.8 * plain
    assert not np.array_equal(rotation("blocks.1.attn.qkv.weight"), made.read("blocks.1.attn.qkv.weight"))


def test_the_tower_of_6b_is_the_one_of_transformers(tmp_path: Path) -> None:
    """RMSNorm in the blocks, norms of queries and keys, no bias in attention."""
    model = write("internvl", tmp_path / "model", **LARGE)
    export_vision(str(model), tmp_path / "bundle")
    assert max(row["relative_error"] for row in read_manifest(tmp_path / "bundle").parity) < 1e-4


def test_a_norm_that_the_graph_does_not_have_is_refused(tmp_path: Path) -> None:
    model = write("internvl", tmp_path / "model", **LARGE)
    path = model / "config.json"
    path.write_text(path.read_text().replace('"rms_norm"', '"group_norm"'))
    with pytest.raises((BundleError, ValueError), match="norm_type"):
        export_vision(str(model), tmp_path / "bundle")
