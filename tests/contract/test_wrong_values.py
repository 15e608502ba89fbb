"""Files of bundles and checkpoints with wrong values: a BundleError that names the file, the key and the value."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.codecs.numbers import NAME as NUMBERS
from contract.codecs.numbers import read_numbers
from contract.embedder import NAME as EMBEDDER_NAME
from contract.embedder import parse_embedder
from contract.errors import BundleError
from contract.language import read_language_card
from contract.manifest import NAME, parse_manifest
from contract.npy import read_array

CONFIG = Path("models/tiny/config.json")
OF_NO_KIND = ([[]], {"a": {}}, "many", "", True, None, 0.5, -1, 10**400, float("nan"), float("inf"))
FREE = {"parity", "gates", "quantisation", "libraries", "special_tokens", "files"}  # with keys of their own
OPTIONAL = {
    "fps", "num_frames", "max_frame_tokens", "max_video_tokens", "video_token_id", "vision_start_token_id", "vision_end_token_id", "tiles",
}  # fmt: skip
TEXTS = {"encoder_fingerprint"}


def leaves(values: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, dict) and name not in FREE:
            yield from leaves(value, *path, name)
        else:
            yield *path, name


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


def fits(name: str, value: Any) -> bool:
    """Whether one of OF_NO_KIND is right for this key all the same."""
    if value is None:
        return name in OPTIONAL
    if name in TEXTS:
        return isinstance(value, str)
    if name == "has_outer_video_wrapper":
        return value is True
    return (name == "fps" and value == 0.5) or (name == "quantisation" and isinstance(value, dict))


@pytest.fixture(scope="module")
def manifest(bundle_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle_folder / NAME).read_text())
    return found


def test_every_key_with_every_kind_of_wrong_value(manifest: dict[str, Any], tmp_path: Path) -> None:
    paths = list(leaves(manifest))
    assert len(paths) > 30
    num_refused = 0
    for path in paths:
        for value in OF_NO_KIND:
            wrong = json.loads(json.dumps(manifest))
            put(wrong, path, value)
            (tmp_path / NAME).write_text(json.dumps(wrong))
            if fits(path[-1], value):
                parse_manifest(tmp_path)
                continue
            with pytest.raises(BundleError) as caught:
                parse_manifest(tmp_path)
            assert path[-1] in str(caught.value) or path[-1] == "family", (path, value)
            assert len(str(caught.value)) < 1000
            num_refused += 1
    assert num_refused > 300


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("card", "hidden_size"), 0, "card: hidden_size is 0, 1 to 1.04858e.06 is expected"),
        (("card", "patch_size"), -14, "patch_size is -14"),
        (("card", "image_token_id"), 1 << 30, "vocab_size"),
        (("card", "family"), ["llava"], "family is"),
        (("image", "mean"), [0.5, 0.5], "mean is .0.5, 0.5., a list of 3 is expected"),
        (("image", "std"), [0.5, 0.5, 0], "no zero is allowed"),
        (("image", "min_pixels"), 1 << 50, "at most max_pixels"),
        (("image", "resample"), 9, "resample is 9, 0 to 5"),
        (("video", "fps"), 0, "fps is 0"),
        (("video", "min_frames"), 1 << 20, "at most max_frames"),
        (("precision",), "fp8", "precision is 'fp8', supported are"),
        (("opset",), "17", "opset is '17', a value of type int is expected"),
        (("libraries",), {"onnx": 1}, "libraries: 'onnx' is 1"),
        (("special_tokens",), ["a"], "special_tokens is"),
        (("parity",), {"a": 1}, "parity is"),
        (("parity",), [1], r"parity\[0\] is 1"),
        (("gates",), "all", "gates is 'all'"),
        (("quantisation",), [], "quantisation is"),
        (("files", "vision.onnx"), 7, "files: 'vision.onnx' is 7"),
        (("files", "vision.onnx"), "ab", "or the 64 of a SHA-256"),
        (("files", "a/b"), "0" * 64, "only files of the bundle itself"),
        (("files", "a\0b"), "0" * 64, "only files of the bundle itself"),
        (("files", "a" * 300), "0" * 64, "only files of the bundle itself"),
        (("files", ""), "0" * 64, "only files of the bundle itself"),
        (("format_version",), "2" * 5000, "format_version is '222"),
    ],
)
def test_a_wrong_value_of_the_manifest_is_named(
    manifest: dict[str, Any], tmp_path: Path, path: tuple[str, ...], value: Any, says: str
) -> None:
    wrong = json.loads(json.dumps(manifest))
    put(wrong, path, value)
    (tmp_path / NAME).write_text(json.dumps(wrong))
    with pytest.raises(BundleError, match=says) as caught:
        parse_manifest(tmp_path)
    assert NAME in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "7", "null", '"a"', "[" * 100_000, '{"format_version": 2', "\udc80", "1" * 10_000]
)
def test_a_manifest_that_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=NAME):
        parse_manifest(tmp_path)


EMBEDDER: dict[str, Any] = {
    "family": "clip", "width": 8, "encoder_fingerprint": "0" * 32, "max_text_tokens": 77, "pads_to_max": False,
    "image": {"min_pixels": 1, "max_pixels": 4, "mean": [0.5] * 3, "std": [0.5] * 3},
    "tiles": {"rule": "squash", "side": 28, "seen": 28, "patch": 14, "merge": 1, "mean": [0.5] * 3},
    "pad_token_id": 0, "logit_scale": 100.0, "logit_bias": 0.0, "precision": "fp32", "opset": 18, "libraries": {},
    "parity": [], "files": dict.fromkeys(("vision.onnx", "text.onnx", "tokenizer.json"), "0" * 64), "format_version": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("width", 0, "width is 0, 1 to"),
        ("max_text_tokens", -77, "max_text_tokens is -77"),
        ("pad_token_id", 1 << 40, "pad_token_id is 1099511627776"),
        ("logit_scale", float("nan"), "logit_scale is nan"),
        ("logit_bias", 1e300, "logit_bias is 1e.300"),
        ("opset", 0, "opset is 0"),
        ("precision", "fp8", "precision is 'fp8', supported are"),
        ("files", {}, "files has no 'vision.onnx'"),
        ("files", EMBEDDER["files"] | {"../a": "0" * 64}, "only files of the bundle itself"),
        ("files", EMBEDDER["files"] | {"embedder.json": "0" * 64}, "only files of the bundle itself"),
        ("files", EMBEDDER["files"] | {"text.onnx": "ab"}, "or the 64 of a SHA-256"),
        ("format_version", 2, "format_version is 2, this version reads 1"),
    ],
)
def test_a_wrong_value_of_an_embedding_models_manifest(tmp_path: Path, name: str, value: Any, says: str) -> None:
    (tmp_path / EMBEDDER_NAME).write_text(json.dumps(EMBEDDER))
    assert parse_embedder(tmp_path).width == 8
    (tmp_path / EMBEDDER_NAME).write_text(json.dumps(EMBEDDER | {name: value}))
    with pytest.raises(BundleError, match=says) as caught:
        parse_embedder(tmp_path)
    assert EMBEDDER_NAME in str(caught.value)


@pytest.fixture
def language(tmp_path: Path) -> Path:
    """The files that a card is read from; without a card in the mark, config.json gives it."""
    shutil.copyfile(CONFIG, tmp_path / "config.json")
    mark = {"encoder_fingerprint": "0" * 32, "has_outer_video_wrapper": True, "format_version": 1}
    (tmp_path / "edge_vlm.json").write_text(json.dumps(mark))
    return tmp_path


CARD_KEYS = [
    *(("text_config", name) for name in ("hidden_size", "vocab_size", "max_position_embeddings")),
    *(("vision_config", name) for name in ("patch_size", "spatial_merge_size", "temporal_patch_size")),
    *(("vision_config", name) for name in ("out_hidden_size", "deepstack_visual_indexes")),
    *((name,) for name in ("image_token_id", "model_type", "text_config", "vision_config")),
]


@pytest.mark.parametrize("path", CARD_KEYS, ids=".".join)
def test_a_wrong_value_of_config_json(language: Path, path: tuple[str, ...]) -> None:
    read_language_card(language)
    config = json.loads((language / "config.json").read_text())
    for value in ("many", "", True, None, 0.5, -1, 10**400, {"a": 1}, [["a"]]):
        wrong = json.loads(json.dumps(config))
        put(wrong, path, value)
        (language / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(BundleError):
            read_language_card(language)


@pytest.mark.parametrize("text", ["[]", "null", "7", "[" * 100_000, "{"])
@pytest.mark.parametrize("name", ["config.json", "edge_vlm.json"])
def test_a_checkpoint_file_that_is_no_object(language: Path, name: str, text: str) -> None:
    (language / name).write_text(text)
    with pytest.raises(BundleError, match=name):
        read_language_card(language)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"format_version": 3}, "format_version is 3, this version reads 1"),
        ({"encoder_fingerprint": 5}, "encoder_fingerprint is 5"),
        ({"encoder_fingerprint": ""}, "has no encoder_fingerprint"),
        ({"has_outer_video_wrapper": "yes"}, "has_outer_video_wrapper is 'yes'"),
        ({"card": []}, "card is"),
        ({"card": {"family": "qwen3_vl"}}, "card has no key"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_a_wrong_value_of_the_mark(language: Path, changed: dict[str, Any], says: str) -> None:
    mark = json.loads((language / "edge_vlm.json").read_text())
    (language / "edge_vlm.json").write_text(json.dumps(mark | changed))
    with pytest.raises(BundleError, match=says):
        read_language_card(language)


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 4), np.int8),
        np.array("text"),
        np.array([1], np.uint32),
    ],
)
def test_an_array_as_numpy_writes_it(array: NDArray[Any]) -> None:
    found = read_array(npy(array), "file")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


GOOD = npy(np.arange(6, dtype=np.float32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:9],
        GOOD[:-1],
        GOOD + b"\0",
        GOOD.replace(b"(6,)", b"(7,)"),
        GOOD.replace(b"(6,)", b"(6"),
        GOOD.replace(b"<f4", b"|O8"),
        GOOD.replace(b"<f4", b"<f3"),
        GOOD.replace(b"(6,), }          ", b"(999999999999,), }"),
        GOOD.replace(b"False", b"True "),
        b"PK\x03\x04" + GOOD,
        GOOD[:6] + b"\x02\x00\xff\xff\xff\xff" + GOOD[12:],
    ],
)
def test_a_damaged_array(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"file\.npy"):
        read_array(data, "file.npy")


@pytest.fixture
def numbers(bundle_folder: Path, tmp_path: Path) -> Path:
    shutil.copyfile(bundle_folder / NUMBERS, tmp_path / NUMBERS)
    return tmp_path


def test_damaged_codec_numbers(numbers: Path, manifest: dict[str, Any]) -> None:
    sizes = manifest["card"]["hidden_size"], manifest["card"]["num_deepstack_levels"]
    path = numbers / NUMBERS
    data = path.read_bytes()
    assert read_numbers(numbers, *sizes) is not None
    random = np.random.default_rng(3)
    num_refused = 0
    for _ in range(300):
        wrong = bytearray(data[: random.integers(0, len(data) + 1)] if random.random() < 0.3 else data)
        for place in random.integers(0, max(len(wrong), 1), 4):
            if len(wrong):
                wrong[place if random.random() < 0.5 else -1 - place % 600 % len(wrong)] = random.integers(0, 256)
        path.write_bytes(wrong)
        try:
            read_numbers(numbers, *sizes)
        except BundleError:
            num_refused += 1
    assert num_refused > 200


def test_a_damaged_name_is_not_repeated_whole(numbers: Path) -> None:
    """An entry of the archive whose name runs over what follows: zipfile writes both names out."""
    path = numbers / NUMBERS
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the directory at the end
    data[26:28] = (at - 40).to_bytes(2, "little") if at < 65536 else b"\xff\xff"  # length of a name, in its file's head
    path.write_bytes(data)
    with pytest.raises(BundleError, match="no codec numbers") as caught:
        read_numbers(numbers, 64, 3)
    assert len(str(caught.value)) < 1000


def test_codec_numbers_that_unpack_to_too_much(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.codecs.numbers.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(numbers / NUMBERS, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("channel_scales.npy", bytes(1 << 21))
    with pytest.raises(BundleError, match="more than 1048576 bytes"):
        read_numbers(numbers, 64, 3)
