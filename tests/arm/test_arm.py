"""The device's code on ARM, emulated: PyPI's aarch64 wheels, the bundled model in every precision, compared with x86."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest

from contract.manifest import PRECISIONS
from edge_runtime import Encoder, Pipeline
from export.parity import GATES, compare
from tests.arm.machine import ArmMachine, prepare
from tests.conftest import CHECKPOINT, run_module
from tests.edge.video_files import write_video
from tiny_model.scenes import shapes_scene

MAX_WHEEL_BYTES = 120 << 20


@pytest.fixture(scope="module")
def arm() -> ArmMachine:
    return prepare()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A picture that is resized, and a video file."""
    folder = tmp_path_factory.mktemp("media")
    shapes_scene(Random(5), 210, 150, 3).image.save(folder / "picture.png")
    return [folder / "picture.png", write_video(folder / "video.mp4", 8, 4, 96, 96)]


# Raspberry Pi 4: no dot product. Raspberry Pi 5: with it. max: also i8mm and bf16.
CASES = [
    ("fp32", "cortex-a72"),
    ("fp16", "cortex-a72"),
    ("int8", "cortex-a72"),
    ("int8", "cortex-a76"),
    ("int8", "max"),
]
CASES += [("int4", "cortex-a72"), ("int4", "cortex-a76")]
assert {precision for precision, _ in CASES} == set(PRECISIONS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Callable[[str], Path]:
    """The bundled model's bundle in a precision, exported when it is first asked for."""
    folder = tmp_path_factory.mktemp("precisions")

    @cache
    def bundle(precision: str) -> Path:
        if precision == PRECISIONS[0]:
            return bundle_folder
        run_module("export.vision", CHECKPOINT, folder / precision, "--precision", precision)
        return folder / precision

    return bundle


@pytest.mark.parametrize(("precision", "cpu"), CASES)
def test_embeddings_are_those_of_this_machine(
    arm: ArmMachine, exported: Callable[[str], Path], media: list[Path], tmp_path: Path, precision: str, cpu: str
) -> None:
    out, bundle = tmp_path / "x.npz", exported(precision)
    words = f"-m edge_runtime encode --bundle {bundle} --threads 1 --json --out {out}".split()
    told = arm.python(cpu, *words, *media)
    pipeline = Pipeline(Encoder.from_bundle(bundle, threads=1))
    parts = [{"type": "image", "image": str(media[0])}, {"type": "video", "video": str(media[1])}]
    here = pipeline.encoder.encode(pipeline.items([{"role": "user", "content": parts}]))
    with np.load(out, allow_pickle=False) as there:
        np.testing.assert_array_equal(there["grid_thw"], here.grid_thw)
        levels = zip(
            [here.image_embeds, *here.deepstack_embeds],
            [there["image_embeds"], *there["deepstack_embeds"]],
            strict=True,
        )
        for number, (ours, theirs) in enumerate(levels):
            row = compare("picture and video", f"level {number}", ours, theirs)
            assert row.passes(GATES[precision]), row
    assert json.loads(told)["num_encoded"] == 2


def test_the_wheels_are_small(arm: ArmMachine) -> None:
    """What a device downloads to encode pictures; PyAV comes only with the extra `video`."""
    sizes = {path.name: path.stat().st_size for path in arm.wheels.glob("*.whl") if not path.name.startswith("av-")}
    assert any(name.startswith("onnxruntime-") and name.endswith("aarch64.whl") for name in sizes), sizes
    assert sum(sizes.values()) <= MAX_WHEEL_BYTES, sizes
