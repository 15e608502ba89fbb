"""The device's code on ARM, emulated: PyPI's aarch64 wheels, the bundled model in every precision, compared with x86."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from contract.manifest import PRECISIONS
from edge_runtime import Embeddings, Encoder, Pipeline
from export.gate.bounds import Gate
from export.gate.parity import compare
from export.precision import BY_NAME
from tests.arm.machine import ArmMachine
from tests.edge.video_files import picture, write_video
from tiny_model.scenes import shapes_scene

MAX_WHEEL_BYTES = 120 << 20


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A picture that is resized, and a folder of frames."""
    folder = tmp_path_factory.mktemp("media")
    shapes_scene(Random(5), 210, 150, 3).image.save(folder / "picture.png")
    (folder / "frames").mkdir()
    for number in range(4):
        picture(number, 96, 96).save(folder / "frames" / f"{number}.png")
    return [folder / "picture.png", folder / "frames"]


# Raspberry Pi 4: no dot product. Raspberry Pi 5: with it. max: also i8mm. Each has kernels of its own; fp32 has none, and
# bf16 is multiplied as fp16.
EVERY = ("cortex-a72", "cortex-a76", "max")
CASES = [("fp32", "cortex-a72"), ("bf16", "cortex-a76")]
CASES += [(precision, cpu) for precision in ("fp16", "int8", "int4") for cpu in EVERY]
assert {precision for precision, _ in CASES} == set(PRECISIONS)


def both(arm: ArmMachine, cpu: str, bundle: Path, out: Path, media: list[Path]) -> tuple[Embeddings, dict[str, Any]]:
    """What the graph's standard operators make of the media on this machine, and what the emulated one makes."""
    words = f"-m edge_runtime encode --bundle {bundle} --threads 1 --json --out {out}".split()
    assert json.loads(arm.python(cpu, *words, *media))["num_encoded"] == len(media)
    kinds = ["image" if path.suffix == ".png" else "video" for path in media]
    parts = [{"type": kind, kind: str(path)} for kind, path in zip(kinds, media, strict=True)]
    pipeline = Pipeline(Encoder.from_bundle(bundle, threads=1, use_kernels=False))
    with np.load(out, allow_pickle=False) as there:
        return pipeline.encoder.encode(pipeline.items([{"role": "user", "content": parts}])), dict(there)


@pytest.mark.parametrize(("precision", "cpu"), CASES)
def test_embeddings_are_those_of_this_machine(
    arm: ArmMachine, exported: Callable[[str], Path], media: list[Path], tmp_path: Path, precision: str, cpu: str
) -> None:
    here, there = both(arm, cpu, exported(precision), tmp_path / "x.npz", media)
    np.testing.assert_array_equal(there["grid_thw"], here.grid_thw)
    theirs = [there["image_embeds"], *there["deepstack_embeds"]]
    for number, level in enumerate([here.image_embeds, *here.deepstack_embeds]):
        row = compare("picture and frames", f"level {number}", level, theirs[number])
        assert row.passes(BY_NAME[precision].gate), row


def test_a_video_file_is_read(arm: ArmMachine, exported: Callable[[str], Path], tmp_path: Path) -> None:
    """FFmpeg converts colours with other instructions there, a grey level apart here and there."""
    video = write_video(tmp_path / "video.mp4", 8, 4, 96, 96)
    here, there = both(arm, "cortex-a76", exported("fp32"), tmp_path / "x.npz", [video])
    np.testing.assert_array_equal(there["grid_thw"], here.grid_thw)
    assert compare("video", "main", here.image_embeds, there["image_embeds"]).passes(Gate(0.999, 0.9999))


def test_the_wheels_are_small(arm: ArmMachine) -> None:
    """What a device downloads to ask about pictures; PyAV comes only with the extra `video`."""
    sizes = {path.name: path.stat().st_size for path in arm.wheels.glob("*.whl") if not path.name.startswith("av-")}
    assert any(name.startswith("onnxruntime-") and name.endswith("aarch64.whl") for name in sizes), sizes
    assert sum(sizes.values()) <= MAX_WHEEL_BYTES, sizes
