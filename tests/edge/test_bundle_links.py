"""A bundle whose files are links, and files that change while a bundle is being opened."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.errors import BundleError
from contract.manifest import GRAPH, WEIGHTS
from edge_runtime import Bundle, Encoder, Pipeline
from edge_runtime.tower.linked_graph import _located, graph_source
from edge_runtime.tower.session_options import session_options
from tests.edge.video_files import picture


def hub_cache(whole: Path, place: Path) -> Path:
    """As huggingface_hub lays files: snapshots of links to blobs that are named by hash."""
    (place / "blobs").mkdir(parents=True)
    (place / "snapshots" / "main").mkdir(parents=True)
    for path in whole.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, place / "blobs" / digest)
        (place / "snapshots" / "main" / path.name).symlink_to(f"../../blobs/{digest}")
    return place / "snapshots" / "main"


def dvc(whole: Path, place: Path) -> Path:
    """As DVC lays files: absolute links into folders that are named by the first two digits."""
    (place / "bundle").mkdir(parents=True)
    for path in whole.iterdir():
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        blob = place / "cache" / digest[:2] / digest[2:]
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        (place / "bundle" / path.name).symlink_to(blob)
    return place / "bundle"


def kubernetes(whole: Path, place: Path) -> Path:
    """As a volume of a ConfigMap: links through a link to the folder of the day."""
    shutil.copytree(whole, place / "..2026_11_30")
    (place / "..data").symlink_to("..2026_11_30")
    for path in whole.iterdir():
        (place / path.name).symlink_to(f"..data/{path.name}")
    return place


def nix(whole: Path, place: Path) -> Path:
    """As a farm of links: every file in a folder of its own under its own name."""
    (place / "farm").mkdir(parents=True)
    for number, path in enumerate(whole.iterdir()):
        (place / f"store-{number}").mkdir()
        shutil.copy(path, place / f"store-{number}" / path.name)
        (place / "farm" / path.name).symlink_to(place / f"store-{number}" / path.name)
    return place / "farm"


@pytest.mark.parametrize("layout", [hub_cache, dvc, kubernetes, nix])
def test_a_bundle_of_links_gives_the_same_rows(
    bundle_folder: Path, pipeline: Pipeline, tmp_path: Path, layout: object
) -> None:
    linked = Encoder.from_bundle(layout(bundle_folder, tmp_path / "place"), threads=1)  # type: ignore[operator]
    items = pipeline.items([{"role": "user", "content": [{"type": "image", "image": picture(0, 160, 128)}]}])
    ours, plain = linked.encode(items), pipeline.encoder.encode(items)
    np.testing.assert_array_equal(ours.image_embeds, plain.image_embeds)
    np.testing.assert_array_equal(ours.deepstack_embeds, plain.deepstack_embeds)


def test_weights_of_two_names_are_refused_with_the_remedy(bundle_folder: Path, tmp_path: Path) -> None:
    """onnxruntime 1.31 takes a second hard link for an attack; stores that keep equal files once make such links."""
    linked = tmp_path / "linked"
    shutil.copytree(bundle_folder, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", linked, copy_function=os.link)
    with pytest.raises(BundleError, match=r"vision\.onnx\.data has 2 names .* copy the bundle"):
        Encoder.from_bundle(linked)
    Encoder.from_bundle(Path(shutil.copytree(linked, tmp_path / "copy")))


def test_a_bundle_behind_a_link_is_a_path_to_onnxruntime(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_folder)
    source = graph_source(Bundle.load(tmp_path / "link"), session_options(1))
    assert source == str(bundle_folder.resolve() / GRAPH)


@pytest.mark.parametrize("name", ["a", "b" * 300])
def test_every_location_and_nothing_else_is_rewritten(bundle_folder: Path, name: str) -> None:
    """Against onnx itself, which sees every tensor of the graph, of loops in it and of functions."""
    data = (bundle_folder / GRAPH).read_bytes()
    ours = onnx.load_model_from_string(_located(memoryview(data), "model", name.encode()))
    num_locations = data.count(b"\x08location\x12")
    assert num_locations > 10
    written = ours.SerializeToString()
    assert written.count(b"\x08location\x12") == num_locations
    assert WEIGHTS.encode() not in written
    again = _located(memoryview(written), "model", WEIGHTS.encode())
    assert onnx.load_model_from_string(again) == onnx.load_model_from_string(data)


@pytest.mark.parametrize("damage", [b"", b"\x3a\xff\xff", b"\x3f", b"no graph at all"])
def test_a_graph_that_is_none_is_a_bundle_error(bundle_folder: Path, tmp_path: Path, damage: bytes) -> None:
    linked = hub_cache(bundle_folder, tmp_path)
    bundle = Bundle.load(linked)
    (linked / GRAPH).resolve().write_bytes(damage)
    with pytest.raises(BundleError):
        Encoder.from_bundle(bundle, threads=1)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("how", ["another file", "written to"])
def test_what_was_checked_is_what_is_opened(bundle_folder: Path, tmp_path: Path, name: str, how: str) -> None:
    """Equal bytes, so that onnxruntime opens them: only the identity of the file tells."""
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    Encoder.from_bundle(bundle, threads=1)
    path = tmp_path / "bundle" / name
    if how == "another file":
        shutil.copy(path, tmp_path / "other")
        (tmp_path / "other").replace(path)
    else:
        path.write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match="was changed while it was being opened"):
        Encoder.from_bundle(bundle, threads=1)
    Encoder.from_bundle(tmp_path / "bundle", threads=1)
