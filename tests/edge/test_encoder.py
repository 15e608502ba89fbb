"""Pixels to embeddings on the device against transformers' tower, and bundles that must not open."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from contract.errors import BundleError, InvalidInput
from contract.files import sha256
from contract.manifest import read_manifest
from edge_runtime import Bundle, Encoder, Pipeline
from edge_runtime.items.item import Item
from edge_runtime.items.preparation import frames_item, picture_item
from tests.conftest import CHECKPOINT
from tests.processor import pixel_values
from tiny_model.clips import slideshow_clip
from tiny_model.scenes import shapes_scene


def some_items(bundle: Bundle) -> list[Item]:
    """Two pictures of different size with a video between."""
    random, manifest = Random(3), bundle.manifest
    wide, tall = (shapes_scene(random, w, h, 2).image for w, h in ((160, 96), (96, 128)))
    clip = slideshow_clip(random, 96, 96, 3)
    return [
        picture_item(wide, manifest.image, manifest.card),
        frames_item(clip.frames, manifest.video, manifest.card),
        picture_item(tall, manifest.image, manifest.card),
    ]


def test_one_call_is_the_tower_item_by_item(pipeline: Pipeline) -> None:
    tower = Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).model.visual.eval()
    items = some_items(pipeline.encoder.bundle)
    ours, image = pipeline.encoder.encode(items), pipeline.encoder.bundle.manifest.image
    start = 0
    for item in items:
        with torch.no_grad():
            oracle = tower(
                torch.from_numpy(pixel_values(item, image)), grid_thw=torch.tensor([item.grid_thw]), return_dict=True
            )
        rows = slice(start, start + len(oracle.pooler_output))
        for got, want in zip(
            [ours.image_embeds, *ours.deepstack_embeds], [oracle.pooler_output, *oracle.deepstack_features], strict=True
        ):
            scale = want.abs().max().item()
            np.testing.assert_allclose(got[rows], want.numpy(), atol=1e-4 * scale)
        start = rows.stop
    assert start == len(ours.image_embeds)


def test_no_items_no_rows(pipeline: Pipeline) -> None:
    embeddings = pipeline.encoder.encode([])
    card = pipeline.encoder.bundle.manifest.card
    assert embeddings.image_embeds.shape == (0, card.hidden_size)
    assert embeddings.deepstack_embeds.shape == (card.num_deepstack_levels, 0, card.hidden_size)


def test_unknown_provider_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="CPUExecutionProvider"):
        Encoder.from_bundle(bundle, provider="NoSuchExecutionProvider")


def mapped_bytes(path: Path) -> int:
    """Address space of this process in which a file lies."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return sum(int(end, 16) - int(start, 16) for start, end in (line[0].split("-") for line in lines))


def test_low_memory_keeps_the_weights_in_the_mapped_file(bundle: Bundle) -> None:
    path = bundle.folder / "vision.onnx.data"
    before, size = mapped_bytes(path), path.stat().st_size
    encoder = Encoder.from_bundle(bundle, threads=1, low_memory=True)
    encoder.encode(some_items(bundle))
    assert mapped_bytes(path) - before >= 0.9 * size
    del encoder
    assert mapped_bytes(path) == before


@pytest.fixture
def copied(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


@pytest.mark.parametrize("name", ["vision.onnx", "vision.onnx.data", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_byte_is_found(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} has BLAKE3"):
        Bundle.load(copied)


@pytest.mark.parametrize("name", ["vision.onnx.data", "image_newline.npy", "codec.npz", "static.onnx.data"])
def test_a_file_that_the_manifest_does_not_name_is_refused(copied: Path, name: str) -> None:
    (copied / name).touch()
    path = copied / "manifest.json"
    values = json.loads(path.read_text())
    values["files"].pop(name, None)
    path.write_text(json.dumps(values))
    for read in (Bundle.open, read_manifest):
        with pytest.raises(BundleError, match=f"files has no '{name}'"):
            read(copied)


def test_a_bundle_of_an_older_export_has_other_digests(copied: Path) -> None:
    path = copied / "manifest.json"
    values = json.loads(path.read_text())
    values["files"] = {name: sha256(copied / name) for name in values["files"]}
    path.write_text(json.dumps(values))
    Encoder.from_bundle(copied, threads=1)
    change(copied / "vision.onnx.data")
    with pytest.raises(BundleError, match="has SHA-256"):
        Encoder.from_bundle(copied, threads=1)


def test_a_cut_or_missing_file_is_found(copied: Path) -> None:
    data = (copied / "vision.onnx.data").read_bytes()
    (copied / "vision.onnx.data").write_bytes(data[:-1])
    with pytest.raises(BundleError, match="changed or cut short"):
        Bundle.load(copied)
    (copied / "vision.onnx.data").unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.load(copied)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [(cut, "changed or cut short"), (change, "has BLAKE3"), (Path.unlink, "is missing"), (Path.touch, None)],
)
def test_weights_are_checked_beside_the_session(copied: Path, damage: Callable[[Path], None], says: str | None) -> None:
    """The session is made while the hash is computed, and nobody gets an encoder before both are there."""
    damage(copied / "vision.onnx.data")
    if says is None:
        Encoder.from_bundle(copied, threads=1)
    else:
        with pytest.raises(BundleError, match=says):
            Encoder.from_bundle(copied, threads=1)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda m: m.pop("card"), "card"),
        (lambda m: m["card"].pop("hidden_size"), "hidden_size"),
        (lambda m: m.update(format_version=99), "format_version is 99"),
        (lambda m: m.update(format_version=1), "format_version is 1, this version reads 2: export it again"),
        (lambda m: m["card"].update(family="other"), "model_type is 'other', supported are"),
        (lambda m: m["files"].pop("vision.onnx"), "vision.onnx"),
        (lambda m: m["files"].update({"../x": "0"}), "files of the bundle itself"),
        (lambda m: m.update(surprise=1), "unknown key 'surprise'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copied: Path, edit: object, says: str) -> None:
    path = copied / "manifest.json"
    values = json.loads(path.read_text())
    edit(values)  # type: ignore[operator]
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=says):
        Bundle.load(copied)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"export\.vision"):
        Bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="no JSON"):
        Bundle.load(tmp_path)
