"""A client that cannot encode sends its picture's bytes or patches; the server's answers are those of an edge that can."""

import base64
import io
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from contract.checks import VISION_CHECKS
from contract.errors import FingerprintMismatch, from_wire
from contract.names import MODEL, UNARY_MODEL, VISION_MODEL
from contract.sampling import Sampling
from edge_runtime import HttpClient, Pipeline
from serving.settings import Settings
from serving.triton.health import fault
from serving.triton.launcher import TritonServer
from serving.triton.orphans import marked
from serving.triton.repository import render_repository
from tests.processor import pixel_values
from tests.serving.reference import Reference
from tests.waiting import wait_for

QUESTION = "What colour is the circle?"


def picture(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def thin_server(language_folder: Path, bundle_folder: Path) -> Iterator[TritonServer]:
    settings = Settings(model=str(language_folder), num_threads=1, bundle=str(bundle_folder))
    with TritonServer(settings) as server:
        yield server


def ask(
    server: TritonServer,
    client: Any = httpclient,
    outputs: tuple[str, ...] = (),
    model: str = VISION_MODEL,
    **tensors: Any,
) -> Any:
    made = []
    for name, value in tensors.items():
        array = np.array(value, object) if isinstance(value, list) else value
        made.append(client.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    url = server.http_url if client is httpclient else server.grpc_url
    with client.InferenceServerClient(url) as connection:
        wanted = [client.InferRequestedOutput(name) for name in outputs] or None
        return connection.infer(model, made, outputs=wanted)


def same_rows(result: Any, request: Any) -> None:
    np.testing.assert_array_equal(result.as_numpy("vision_embeddings"), request.main.astype(np.float16))
    np.testing.assert_array_equal(result.as_numpy("deepstack_embeddings"), request.deepstack.astype(np.float16))
    np.testing.assert_array_equal(result.as_numpy("image_grid_thw"), request.image_grid_thw)
    assert result.as_numpy("encoder_fingerprint")[0].decode() == request.encoder_fingerprint


@pytest.mark.parametrize("client", [grpcclient, httpclient])
def test_bytes_give_the_rows_of_the_edge(thin_server: TritonServer, pipeline: Pipeline, client: Any) -> None:
    """Bit by bit: the same code on the same bundle."""
    files = [picture(320, 240, 1), picture(96, 200, 2)]
    messages = [{"role": "user", "content": [{"type": "image", "image": file} for file in files]}]
    request = pipeline.request(messages)
    result = ask(thin_server, client, image=files)
    same_rows(result, request)
    assert [key.decode() for key in result.as_numpy("vision_keys")] == request.keys("fp16")


def test_patches_give_the_rows_of_the_edge(thin_server: TritonServer, pipeline: Pipeline) -> None:
    request = pipeline.ask(picture(128, 160, 3), QUESTION)
    (item,) = pipeline.items([{"role": "user", "content": [{"type": "image", "image": picture(128, 160, 3)}]}])
    result = ask(
        thin_server,
        pixel_values=pixel_values(item, pipeline.encoder.bundle.manifest.image),
        image_grid_thw=np.array([item.grid_thw]),
    )
    same_rows(result, request)


def test_patches_of_a_video(thin_server: TritonServer, pipeline: Pipeline) -> None:
    frames = np.random.default_rng(4).integers(0, 256, (4, 64, 96, 3), np.uint8)
    (item,) = pipeline.items([{"role": "user", "content": [{"type": "video", "video": frames}]}])
    found = pipeline.encoder.encode([item])
    result = ask(
        thin_server,
        pixel_values=pixel_values(item, pipeline.encoder.bundle.manifest.image),
        video_grid_thw=np.array([item.grid_thw]),
    )
    np.testing.assert_array_equal(result.as_numpy("vision_embeddings"), found.image_embeds.astype(np.float16))
    assert result.as_numpy("video_grid_thw").tolist() == [list(item.grid_thw)]


def decoders(server: TritonServer) -> list[int]:
    """The processes that decode pictures for this server."""
    found = []
    for pid in marked(server.shm_prefix):
        with suppress(OSError):  # it has just ended
            if b"items.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_caller_who_leaves_ends_the_decoding(thin_server: TritonServer) -> None:
    """A decoder that ends its work waits for more; only one whose caller left is gone."""
    before = set(decoders(thin_server))
    file = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(file, "PNG")
    given = grpcclient.InferInput("image", [8], "BYTES")
    given.set_data_from_numpy(np.array([file.getvalue()] * 8, object))
    with grpcclient.InferenceServerClient(thin_server.grpc_url) as client:
        ended = threading.Event()
        for pid in before:
            os.kill(pid, signal.SIGKILL)  # so that the next request starts its own
        wait_for(lambda: before.isdisjoint(decoders(thin_server)))
        call = client.async_infer(VISION_MODEL, [given], lambda result, error: ended.set())
        wait_for(lambda: bool(set(decoders(thin_server)) - before))
        (decoder,) = set(decoders(thin_server)) - before
        call.cancel()
        assert ended.wait(30)
    wait_for(lambda: decoder not in decoders(thin_server))
    assert ask(thin_server, image=[picture(96, 96, 1)]).as_numpy("image_grid_thw").tolist() == [[1, 6, 6]]


def test_the_answer_is_that_of_an_edge_that_encodes(thin_server: TritonServer, pipeline: Pipeline) -> None:
    """The whole way over plain JSON: a data URL, its key, the question by key; nothing but text travels."""
    file = picture(256, 256, 5)
    with HttpClient(thin_server.http_url) as client:
        expected = client.infer(pipeline.ask(file, QUESTION), Sampling(max_tokens=12))
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        question(thin_server, pipeline, "0" * 64)
    url = "data:image/jpeg;base64," + base64.b64encode(picture(256, 256, 5)).decode()
    body = json.dumps({"image": url}).encode()
    where = f"http://{thin_server.http_url}/v2/models/{VISION_MODEL}/infer"
    asked = {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [json.loads(body)["image"]]}],
        "outputs": [{"name": "vision_keys"}],
    }
    with urllib.request.urlopen(where, json.dumps(asked).encode(), timeout=30) as reply:
        (output,) = json.load(reply)["outputs"]
    result = question(thin_server, pipeline, output["data"][0])
    assert result.as_numpy("text_output")[0].decode() == expected.text
    assert tuple(result.as_numpy("token_ids").tolist()) == expected.token_ids


def question(server: TritonServer, pipeline: Pipeline, key: str) -> Any:
    """The prompt of pipeline.ask as text, by key."""
    ids = pipeline.ask(picture(256, 256, 5), QUESTION).input_ids
    values = {"input_ids": ids, "vision_keys": np.array([key.encode()], object)}
    values["sampling_parameters"] = np.array([b'{"max_tokens": 12}'], object)
    inputs = []
    for name, array in values.items():
        inputs.append(httpclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    with httpclient.InferenceServerClient(server.http_url) as connection:
        return connection.infer(UNARY_MODEL, inputs)


GOOD = picture(64, 64, 6)
PATCHES = np.ones((16, 1536), np.float32)
BOMB = io.BytesIO()
Image.new("1", (20_000, 20_000)).save(BOMB, "PNG")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"image": [GOOD], "pixel_values": PATCHES}, "both of image and pixel_values"),
    "neither": ({"image_grid_thw": np.array([[1, 4, 4]])}, "neither of image and pixel_values"),
    "empty": ({"image": [b""]}, r"image\[0\] is empty"),
    "cut short": ({"image": [GOOD[:300]]}, "cannot be decoded"),
    "no picture": ({"image": [b"hello"]}, "cannot be read"),
    "a path": ({"image": [b"/etc/hostname"]}, "cannot be read"),
    "a file URL": ({"image": [b"file:///etc/hostname"]}, "cannot be read"),
    "a URL": ({"image": [b"http://127.0.0.1/x.png"]}, "cannot be read"),
    "a bomb": ({"image": [BOMB.getvalue()]}, "too large"),
    "too many": ({"image": [GOOD] * 65}, "65 pictures, 64 are allowed"),
    "grids of files": ({"image": [GOOD], "image_grid_thw": np.array([[1, 4, 4]])}, "goes with pixel_values"),
    "no grid": ({"pixel_values": PATCHES}, "pixel_values has shape"),
    "narrow": ({"pixel_values": PATCHES[:, 1:].copy(), "image_grid_thw": np.array([[1, 4, 4]])}, r"\[16, 1535\]"),
    "odd grid": ({"pixel_values": PATCHES, "image_grid_thw": np.array([[1, 3, 4]])}, "multiples of 2"),
    "NaN": (
        {"pixel_values": PATCHES * np.float32("nan"), "image_grid_thw": np.array([[1, 4, 4]])},
        "grey levels from 0 to 255",
    ),
    "no grey level": (
        {"pixel_values": PATCHES * 0, "image_grid_thw": np.array([[1, 4, 4]])},
        "grey levels from 0 to 255",
    ),
    "too bright": ({"pixel_values": PATCHES * 2, "image_grid_thw": np.array([[1, 4, 4]])}, "grey levels from 0 to 255"),
    "too long": ({"pixel_values": PATCHES, "image_grid_thw": np.array([[1, 4096, 4096]])}, "4194304 rows"),
}


ROWS = {  # of the contract's table, by the examples that break them
    "source": ("both", "neither"),
    "grids": ("grids of files",),
    "pictures": ("too many",),
    "no-bytes": ("empty",),
    "picture": ("cut short", "no picture", "a bomb"),
    "patches": ("no grid", "narrow"),
    "pixels": ("NaN", "no grey level", "too bright"),
    "picture-rows": ("too long",),
}


def test_every_row_of_the_table_has_examples() -> None:
    assert ROWS.keys() == VISION_CHECKS.keys()
    assert {name for names in ROWS.values() for name in names} <= WRONG.keys()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pictures_are_refused_alone(thin_server: TritonServer, name: str) -> None:
    tensors, message = WRONG[name]
    with pytest.raises(InferenceServerException, match=message) as refused:
        ask(thin_server, **tensors)
    assert refused.value.status() == "400"
    assert "[INVALID_ARG]" in refused.value.message()
    with pytest.raises(InferenceServerException, match=message) as refused:
        ask(thin_server, grpcclient, **tensors)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert ask(thin_server, outputs=("vision_keys",), image=[GOOD]).as_numpy("vision_embeddings") is None


@pytest.mark.parametrize("client", [grpcclient, httpclient])
def test_the_old_name_of_the_model(thin_server: TritonServer, pipeline: Pipeline, client: Any) -> None:
    """The same rows, keys and refusals; no second tower is loaded for it."""
    old, file = "qwen3_vl_vision", picture(320, 240, 1)
    result = ask(thin_server, client, model=old, image=[file])
    same_rows(result, pipeline.ask(file, QUESTION))
    assert [key.decode() for key in result.as_numpy("vision_keys")] == pipeline.ask(file, QUESTION).keys("fp16")
    only_keys = ask(thin_server, client, ("vision_keys",), old, image=[file])
    assert only_keys.as_numpy("vision_embeddings") is None
    for tensors, message in WRONG.values():
        with pytest.raises(InferenceServerException, match=message) as refused:
            ask(thin_server, client, model=old, **tensors)
        assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    where = f"http://{thin_server.http_url}/v2/models/{old}/generate"
    with pytest.raises(urllib.error.HTTPError) as unknown:
        urllib.request.urlopen(where, json.dumps({"image": "", "colour": "red"}).encode(), timeout=30)
    assert "'colour' is no input" in json.loads(unknown.value.read())["error"]


def test_it_answers_the_sign_of_life(thin_server: TritonServer) -> None:
    assert fault(thin_server.http_url) is None


def test_many_at_once(thin_server: TritonServer, pipeline: Pipeline) -> None:
    """More than there are threads for, and refusals among them."""
    files = [picture(64, 64 + 32 * (i % 3), i) if i % 4 else b"no picture" for i in range(12)]

    def one(file: bytes) -> Any:
        try:
            return ask(thin_server, image=[file])
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(12) as pool:
        for file, result in zip(files, pool.map(one, files), strict=True):
            if file == b"no picture":
                assert "cannot be read" in result.message()
            else:
                same_rows(result, pipeline.ask(file, QUESTION))


def test_it_is_off_unless_asked_for(server: TritonServer, thin_server: TritonServer) -> None:
    with pytest.raises(InferenceServerException, match="unknown model"):
        ask(server, image=[GOOD])
    for running, is_on in ((server, "false"), (thin_server, "true")):
        with httpclient.InferenceServerClient(running.http_url) as client:
            parameters = client.get_model_config(MODEL)["parameters"]
        assert parameters["has_vision_model"]["string_value"] == is_on


def test_a_bundle_of_another_tower_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    other = Reference(tmp_path / "other")
    with pytest.raises(FingerprintMismatch, match=r"[0-9a-f]{32}") as refused:
        render_repository(tmp_path / "models", Settings(str(other.language), bundle=str(bundle_folder)))
    assert isinstance(from_wire(refused.value.wire()), ValueError)
