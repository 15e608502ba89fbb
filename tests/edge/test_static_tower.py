"""The tower on graphs of one picture size: which pictures take them, that their rows are the usual ones, what falls
back to the graph of every size, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contract.errors import BundleError, InvalidInput, MediaError
from contract.manifest import read_manifest
from contract.static_graph import WEIGHTS, StaticGraph
from edge_runtime import Bundle, EmbeddingCache, Encoder, Pipeline
from edge_runtime.__main__ import main
from edge_runtime.items.grid_choice import MAX_ENLARGEMENT, fits, grid_choice
from edge_runtime.items.workers import DecodingLimits
from export.graph.data_file import DataFile
from export.source.checkpoint import Checkpoint
from export.static.graph import write_static_graph
from export.static.grid import grids_of
from tests.conftest import CHECKPOINT

SIZES = "128x128,96x128,160x160"  # the model's own bounds are 96 x 96 and 160 x 160 pixels


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def turn(*media: Any) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": one} if isinstance(one, Image.Image) else one for one in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture(scope="module")
def static_folder(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's bundle with three static graphs."""
    folder = Path(shutil.copytree(bundle_folder, tmp_path_factory.mktemp("static") / "bundle"))
    checkpoint, manifest = Checkpoint(CHECKPOINT), read_manifest(folder)
    tower, held = checkpoint.family.tower(checkpoint.facts), []
    with DataFile(folder / WEIGHTS) as data:
        for grid in grids_of(SIZES, tower):
            path = folder / f"static_{grid}.onnx"
            write_static_graph(checkpoint.family, tower, checkpoint.tower_tensor, checkpoint.image, grid, path, data)
            held.append(StaticGraph(grid.height, grid.width, "onnx", "fp32", path.name))
    replace(manifest, static=held).write(folder)
    return folder


@pytest.fixture(scope="module")
def static(static_folder: Path) -> Pipeline:
    return Pipeline(Encoder.from_bundle(static_folder, threads=1, provider="static"))


def close(left: Any, right: Any) -> bool:
    scale = np.sqrt(np.mean(np.square(right)))
    return left.shape == right.shape and bool(np.abs(left - right).max() <= 1e-4 * scale)


def test_rows_and_ids_are_those_of_the_graph_of_every_size(static: Pipeline, pipeline: Pipeline) -> None:
    """Pictures that take a static graph, pictures of other shapes and a video in one prompt, in any order."""
    video = {"type": "video", "video": [np.asarray(picture(64, 64, seed)) for seed in range(4)]}
    moving = {"type": "video", "video": [np.asarray(picture(128, 128, seed)) for seed in range(2)]}
    messages = turn(picture(128, 128, 1), picture(64, 200, 2), video, picture(128, 96, 3), moving, picture(192, 192, 4))
    got, expected = static.request(messages), pipeline.request(messages)
    assert got.ran == ("static fp32 128x128", "cpu", "cpu", "static fp32 96x128", "cpu", "static fp32 160x160")
    assert expected.ran == ("cpu",) * 6
    assert got.input_ids.tolist() == expected.input_ids.tolist()
    assert got.image_grid_thw.tolist() == expected.image_grid_thw.tolist()
    for one, other in zip(got.items, expected.items, strict=True):
        assert close(one.main, other.main)
        assert close(one.deepstack, other.deepstack)


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (130, 126, (1, 8, 8)),  # the usual size itself
        (1000, 1000, (1, 10, 10)),  # larger than every size: the largest
        (640, 480, (1, 6, 8)),  # usually 160 x 128, which no size is: the one of its shape
        (100, 97, (1, 6, 8)),  # usually 96 x 96: rounding allows 96 x 128, which is nearer than 128 x 128
    ],
)
def test_a_picture_takes_the_size_that_wastes_least(
    static: Pipeline, pipeline: Pipeline, width: int, height: int, grid: tuple[int, int, int]
) -> None:
    image = picture(width, height, 5)
    request = static.request(turn(image))
    assert request.items[0].grid_thw == grid
    assert request.ran[0].startswith("static fp32 ")
    _, rows, columns = grid
    asked = {"type": "image", "image": image, "resized_height": rows * 16, "resized_width": columns * 16}
    same = pipeline.request(turn(asked))
    assert request.input_ids.tolist() == same.input_ids.tolist()
    assert close(request.main, same.main)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (900, 300)),  # no size has the shape
        ({"max_pixels": 96 * 96}, (500, 500)),
        ({"min_pixels": 130 * 130}, (640, 480)),
        ({"resized_height": 96, "resized_width": 160}, (500, 500)),
    ],
)
def test_other_sizes_are_those_of_the_processor(
    static: Pipeline, pipeline: Pipeline, options: dict[str, int], size: tuple[int, int]
) -> None:
    messages = turn({"type": "image", "image": picture(*size, 6), **options})
    got, expected = static.request(messages), pipeline.request(messages)
    assert got.ran == ("cpu",)
    assert got.items[0].grid_thw == expected.items[0].grid_thw
    assert np.array_equal(got.main, expected.main)


def test_the_device_bounds_the_size(static_folder: Path) -> None:
    small = Pipeline(Encoder.from_bundle(static_folder, threads=1, provider="static"), max_pixels=130 * 130)
    assert small.request(turn(picture(1000, 1000))).ran == ("static fp32 128x128",)


def test_a_size_of_the_message_may_be_one_of_the_accelerator(static: Pipeline) -> None:
    part = {"type": "image", "image": picture(400, 300), "resized_height": 128, "resized_width": 128}
    assert static.request(turn(part)).ran == ("static fp32 128x128",)


def test_too_long_a_picture_is_still_an_error(static: Pipeline) -> None:
    with pytest.raises(MediaError, match="aspect ratio"):
        static.request(turn(picture(4020, 20)))


SIDE = st.integers(1, 4000)


@given(height=SIDE, width=SIDE, steps=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=5))
def test_a_chosen_size_is_no_worse_than_rounding(height: int, width: int, steps: list[tuple[int, int]]) -> None:
    sizes = [(rows * 32, columns * 32) for rows, columns in steps]
    usual = (max(1, round(height / 32)) * 32, max(1, round(width / 32)) * 32)
    chosen = grid_choice(height, width, usual, sizes, 32, (0, 1e9))
    if chosen is None:
        assert usual not in sizes
        return
    assert chosen in sizes
    if chosen != usual:
        assert fits(height, width, chosen, 32)
        assert chosen[0] * chosen[1] <= MAX_ENLARGEMENT * usual[0] * usual[1]
        scale = (chosen[0] * chosen[1] / (height * width)) ** 0.5
        assert abs(height * scale - chosen[0]) <= 16 + 1e-6
        assert abs(width * scale - chosen[1]) <= 16 + 1e-6


def test_processes_that_decode_choose_alike(static_folder: Path, static: Pipeline) -> None:
    encoder = Encoder.from_bundle(static_folder, threads=1, provider="static")
    apart = Pipeline(encoder, decoding=DecodingLimits())
    try:
        image = picture(1000, 1000, 5)
        assert apart.items(turn(image))[0].digest == static.items(turn(image))[0].digest
    finally:
        apart.close()


def test_the_cache_never_mixes_what_ran(static_folder: Path, tmp_path: Path) -> None:
    """A folder that keeps rows between runs gives an accelerator's rows to nobody else."""
    image = turn(picture(128, 128, 9))

    def ran(provider: str) -> tuple[str, ...]:
        encoder = Encoder.from_bundle(static_folder, threads=1, provider=provider)
        return Pipeline(encoder, cache=EmbeddingCache(folder=tmp_path)).request(image).ran

    providers = ("static", "CPUExecutionProvider")
    assert [ran(name) for name in providers] == [("static fp32 128x128",), ("cpu",)]
    assert [ran(name) for name in providers] == [(), ()]


def test_what_cannot_run_is_refused(bundle: Bundle, static_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="this bundle has graphs for no accelerator: export it again with --static"):
        Encoder.from_bundle(bundle, provider="static")
    with pytest.raises(InvalidInput, match="provider is 'static:npu', static alone is allowed"):
        Encoder.from_bundle(static_folder, provider="static:npu")


@pytest.fixture
def copy(static_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(static_folder, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["static_96x128.onnx", WEIGHTS])
def test_a_changed_file_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match="BLAKE3"):
        Encoder.from_bundle(copy, provider="static")


def test_a_file_that_is_no_graph_is_refused(copy: Path) -> None:
    (copy / "static_96x128.onnx").write_bytes(b"no graph")
    read = json.loads((copy / "manifest.json").read_text())
    replace(Bundle.load(rehashed(copy, read)).manifest).write(copy)
    with pytest.raises(BundleError, match=r"static_96x128\.onnx cannot be loaded by onnxruntime"):
        Encoder.from_bundle(copy, provider="static")


def rehashed(folder: Path, values: dict[str, Any]) -> Path:
    """The folder with a manifest whose hashes are those of its files."""
    from contract.files import digest

    values["files"] = {name: digest(folder / name) for name in values["files"]}
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def test_a_graph_of_other_outputs_is_refused(copy: Path) -> None:
    path = copy / "static_128x128.onnx"
    model = onnx.load(path, load_external_data=False)
    (merged,) = (node for node in model.graph.node if node.output[0] == "image")
    merged.output[0] = "rows"
    model.graph.node.append(onnx.helper.make_node("Concat", ["rows", "rows"], ["image"], axis=1))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value *= 2
    path.write_bytes(model.SerializeToString())
    rehashed(copy, json.loads((copy / "manifest.json").read_text()))
    encoder = Encoder.from_bundle(copy, threads=1, provider="static")
    with pytest.raises(BundleError, match=r"static fp32 128x128 gives .*\[32, 192\].*export the bundle again"):
        Pipeline(encoder).request(turn(picture(128, 128)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "tpu"}, "target is 'tpu', known are onnx"),
        ({"file": "../x"}, "file is '../x', a name of a file in the bundle"),
        ({"file": "absent.onnx"}, "static names 'absent.onnx', and files does not"),
        ({"height": 0}, "height is 0, 1 to 16384"),
        ({"height": 16384, "width": 2}, "at most 16384 patches"),
        ({"speed": 1}, "unknown key 'speed'"),
    ],
)
def test_a_wrong_entry_of_the_manifest_is_refused(copy: Path, change: dict[str, Any], said: str) -> None:
    values = json.loads((copy / "manifest.json").read_text())
    values["static"][0] |= change
    (copy / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=said):
        Bundle.load(copy)


def test_the_command_line_says_what_ran(
    static_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("square", (300, 300)), ("wide", (900, 300))):
        picture(*size).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in ("square", "wide")]
    common = ["--bundle", str(static_folder), "--provider", "static", "--threads", "1", "--json"]
    assert main(["encode", *common, "--out", str(tmp_path / "x.npz"), *files]) == 0
    assert json.loads(capsys.readouterr().out)["ran"] == ["static fp32 160x160", "cpu"]
    assert main(["bench", *common, "--size", "128", "--repeats", "1", "--report", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["provider"], report["ran"]) == ("static", {"static fp32 128x128": 1})


def test_links_are_followed(static_folder: Path, tmp_path: Path) -> None:
    """A model hub's cache has links with the files' hashes for names."""
    blobs, folder = tmp_path / "blobs", tmp_path / "bundle"
    blobs.mkdir()
    folder.mkdir()
    for number, path in enumerate(sorted(static_folder.iterdir())):
        (blobs / f"blob{number}").write_bytes(path.read_bytes())
        (folder / path.name).symlink_to(blobs / f"blob{number}")
    encoder = Encoder.from_bundle(folder, threads=1, provider="static")
    assert Pipeline(encoder).request(turn(picture(128, 128))).ran == ("static fp32 128x128",)
