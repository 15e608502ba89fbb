"""The device's sizes, grids, pixels and token ids against transformers' own processor."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import load_image

from contract.errors import InvalidInput, MediaError
from edge_runtime import Bundle
from edge_runtime.items.patches import normalised, to_bytes, to_patches
from edge_runtime.items.preparation import frames_item, picture_item
from edge_runtime.items.resize import image_size, video_size
from edge_runtime.prompts.chat_template import render
from edge_runtime.prompts.prompt import prompt_ids
from tests.conftest import CHECKPOINT
from tests.processor import load_processor, pixel_values
from tiny_model.scenes import shapes_scene, text_scene

ONE_STEP = 2 / 255 + 1e-6  # one grey level after (x / 255 - 0.5) / 0.5


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(CHECKPOINT)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a gradient: every resize filter shows."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    return Image.fromarray((ramp + random.integers(0, 55, (height, width, 3))).astype(np.uint8))


SIZES = [(96, 96), (128, 160), (640, 480), (437, 300), (31, 977), (1000, 333), (20, 20), (161, 159), (97, 1800)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_picture_is_what_the_processor_makes_of_it(processor: Any, bundle: Bundle, width: int, height: int) -> None:
    image = photo(width, height)
    oracle = processor.image_processor(images=[image], return_tensors="np")
    item = picture_item(image, bundle.manifest.image, bundle.manifest.card)
    assert item.grid_thw == tuple(oracle["image_grid_thw"][0])
    np.testing.assert_allclose(pixel_values(item, bundle.manifest.image), oracle["pixel_values"], atol=ONE_STEP)


def transparent(mode: str) -> Image.Image:
    """A picture whose transparency rises from above to below: an alpha channel, or one alpha a palette's colour."""
    image = photo(128, 96)
    if mode == "P":
        found = image.quantize(64)
        found.info["transparency"] = bytes(range(0, 256, 4))
        return found
    found = image.convert(mode.removesuffix("A"))
    found.putalpha(Image.linear_gradient("L").resize(image.size))
    return found


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_what_transformers_makes_of_a_pil_image_and_of_an_array_not_of_a_path(
    processor: Any, bundle: Bundle, tmp_path: Path, mode: str
) -> None:
    """transformers lays PIL images and arrays on white, as the device does. It drops the alpha channel of a path, of a
    data URL, of an http URL and of what `load_image` gives."""
    path = tmp_path / "picture.png"
    transparent(mode).save(path)
    with Image.open(path) as image:
        image.load()
    assert (image.mode, image.has_transparency_data) == (mode, True)
    how, card = bundle.manifest.image, bundle.manifest.card
    rgba = np.asarray(image.convert("RGBA"))  # transformers takes no arrays of LA and of palettes
    ours = [picture_item(source, how, card) for source in (path, image, rgba)]
    assert all(np.array_equal(item.patches, ours[0].patches) for item in ours)
    found = pixel_values(ours[0], how)

    def theirs(source: Any) -> Any:
        messages = [{"role": "user", "content": [{"type": "image", "image": source}]}]
        given = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="np")
        return given["pixel_values"]

    for source in (image, rgba):
        np.testing.assert_allclose(found, theirs(source), atol=ONE_STEP)
    dropped = pixel_values(picture_item(image.convert("RGB"), how, card), how)
    assert np.abs(found - dropped).max() > 0.5
    with serve_folder(tmp_path) as address:
        data = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        paths: list[Any] = [str(path), f"{address}/picture.png", data, load_image(str(path))]
        for source in paths:
            np.testing.assert_allclose(dropped, theirs(source), atol=ONE_STEP)


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on this machine; gives the address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1 << 14), st.integers(1, 1 << 12))
@settings(max_examples=300, deadline=None)
def test_image_size_is_smart_resize(height: int, width: int, low: int, factor_count: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    high = low + factor_count * 1024
    if max(height, width) / min(height, width) > 200:
        with pytest.raises(MediaError, match="aspect ratio"):
            image_size(height, width, 32, low, high)
    else:
        assert image_size(height, width, 32, low, high) == smart_resize(height, width, 32, low, high)


@given(st.integers(2, 64), st.integers(8, 2000), st.integers(8, 2000))
@settings(max_examples=300, deadline=None)
def test_video_size_is_smart_resize(frames: int, height: int, width: int) -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    if max(height, width) / min(height, width) > 150:
        return
    low, high = 96 * 96, 8 * 160 * 160
    oracle = smart_resize(frames, height, width, 2, 32, low, high)
    assert video_size(frames, height, width, 32, 2, low, high) == oracle


def test_video_patches_are_in_the_processors_order(processor: Any, bundle: Bundle) -> None:
    frames = [photo(128, 96, seed) for seed in range(5)]  # an odd tail; no resize, so no filter stands between
    metadata = {"fps": 2.0, "total_num_frames": 5, "frames_indices": list(range(5))}
    oracle = processor.video_processor(
        videos=[np.stack([np.asarray(f) for f in frames])],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="np",
    )
    item = frames_item(frames, bundle.manifest.video, bundle.manifest.card)
    assert item.grid_thw == tuple(oracle["video_grid_thw"][0]) == (3, 6, 8)
    np.testing.assert_allclose(pixel_values(item, bundle.manifest.video), oracle["pixel_values_videos"], atol=1e-6)


def test_raster_patch_order_is_not_ours() -> None:
    frames = np.asarray(photo(64, 64))[None]
    ours, _ = to_patches(frames)
    raster = ours.reshape(2, 2, 2, 2, -1).transpose(0, 2, 1, 3, 4).reshape(16, -1)
    assert not np.array_equal(ours, raster)


CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize(("mean", "std"), [((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), CLIP])
def test_bytes_come_back_from_pixel_values(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    patches = np.random.default_rng(0).integers(0, 256, (8, 1536), np.uint8)
    values = normalised(patches, mean, std)
    np.testing.assert_array_equal(to_bytes(values, mean, std), patches)
    np.testing.assert_array_equal(to_bytes(values.astype(np.float16).astype(np.float32), mean, std), patches)
    for wrong in (values + 0.5 / 255 / std[0], values * np.nan, values + 2):
        with pytest.raises(InvalidInput, match="grey levels from 0 to 255 normalised with"):
            to_bytes(wrong, mean, std)


def message(*parts: Any) -> dict[str, Any]:
    content = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        elif isinstance(part, list):
            content.append({"type": "video", "video": part})
        else:
            content.append({"type": "image", "image": part})
    return {"role": "user", "content": content}


CONVERSATIONS = {
    "one picture": [message(photo(300, 200), "How many circles are there?")],
    "text only": [message("Hello, wörld! 你好  \n 1234")],
    "two sizes": [message(photo(300, 200), photo(96, 160, 1), "Describe the image.")],
    "video": [message([photo(128, 96, s) for s in range(5)], "What appears last?")],
    "mixed": [message(photo(200, 200), [photo(96, 96, s) for s in range(4)], photo(64, 200), "What?")],
    "turns": [
        {"role": "system", "content": "You are a helpful assistant."},
        message(photo(300, 200), "What do you see?"),
        {"role": "assistant", "content": "A red circle."},
        message(photo(100, 100), "And here?"),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_the_processors(processor: Any, bundle: Bundle, name: str) -> None:
    messages = CONVERSATIONS[name]
    manifest = bundle.manifest
    parts = [p for m in messages if isinstance(m["content"], list) for p in m["content"]]
    images = [p["image"] for p in parts if p["type"] == "image"]
    videos = [p["video"] for p in parts if p["type"] == "video"]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert render(bundle.chat_template, messages) == text
    metadata = [{"fps": 2.0, "total_num_frames": len(v), "frames_indices": list(range(len(v)))} for v in videos]
    video_inputs = {
        "videos": [np.stack([np.asarray(f) for f in v]) for v in videos],
        "video_metadata": metadata,
        "do_sample_frames": False,
    }
    oracle = processor(text=[text], images=images or None, **(video_inputs if videos else {}), return_tensors="np")
    items = [
        picture_item(p["image"], manifest.image, manifest.card)
        if p["type"] == "image"
        else frames_item(p["video"], manifest.video, manifest.card)
        for p in parts
        if p["type"] != "text"
    ]
    np.testing.assert_array_equal(prompt_ids(text, items, bundle), oracle["input_ids"][0])


@given(st.integers(0, 1 << 30), st.integers(1, 3), st.text(max_size=40))
@settings(max_examples=25, deadline=None)
def test_ids_of_any_question(processor: Any, bundle: Bundle, seed: int, pictures: int, question: str) -> None:
    random = Random(seed)
    draw = [shapes_scene, text_scene]
    images = [random.choice(draw)(random, random.choice([96, 160]), 128, 2).image for _ in range(pictures)]
    if "<|" in question:
        return
    messages = [message(*images, question)]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    oracle = processor(text=[text], images=images, return_tensors="np")["input_ids"][0]
    items = [picture_item(image, bundle.manifest.image, bundle.manifest.card) for image in images]
    np.testing.assert_array_equal(prompt_ids(render(bundle.chat_template, messages), items, bundle), oracle)


def test_pad_tokens_of_the_users_own_are_refused(bundle: Bundle) -> None:
    item = picture_item(photo(96, 96), bundle.manifest.image, bundle.manifest.card)
    text = render(bundle.chat_template, [message(photo(96, 96), "<|image_pad|>")])
    with pytest.raises(InvalidInput, match="2 image pads"):
        prompt_ids(text, [item], bundle)


def test_frames_of_one_size(bundle: Bundle) -> None:
    with pytest.raises(MediaError, match="one size"):
        frames_item([photo(96, 96), photo(128, 96)], bundle.manifest.video, bundle.manifest.card)
