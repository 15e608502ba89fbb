"""A conversation shows its pictures with every turn; they are opened and resized for the first one only."""

import base64
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import edge_runtime.items.maker
from edge_runtime import Bundle, EmbeddingCache, Encoder, Pipeline, Request
from edge_runtime.items.item import Item
from edge_runtime.reuse.seen import SeenItems
from tests.edge.video_files import write_video
from tiny_model.scenes import shapes_scene


@pytest.fixture
def keeping(bundle: Bundle) -> Pipeline:
    return Pipeline(Encoder.from_bundle(bundle, threads=1), cache=EmbeddingCache())


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pipeline opens, in order; the real functions do the work."""
    opened: list[str] = []

    def noted(name: str) -> None:
        real: Callable[..., Item] = getattr(edge_runtime.items.maker, name)

        def call(*args: Any) -> Item:
            opened.append(name)
            return real(*args)

        monkeypatch.setattr(edge_runtime.items.maker, name, call)

    noted("picture_item")
    noted("video_item")
    return opened


def turn(kind: str, source: Any, **options: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: source, **options}, {"type": "text", "text": "What?"}]}]


def same(ours: Request, other: Request) -> None:
    np.testing.assert_array_equal(ours.input_ids, other.input_ids)
    np.testing.assert_array_equal(ours.main, other.main)
    np.testing.assert_array_equal(ours.deepstack, other.deepstack)
    np.testing.assert_array_equal(ours.image_grid_thw, other.image_grid_thw)
    np.testing.assert_array_equal(ours.video_grid_thw, other.video_grid_thw)


def save(path: Path, seed: int) -> Path:
    shapes_scene(Random(seed), 160, 128, 3).image.save(path)
    return path


def test_a_picture_is_known_by_its_bytes(tmp_path: Path, keeping: Pipeline, prepared: list[str]) -> None:
    path = save(tmp_path / "a.png", 5)
    data = path.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    first = keeping.request(turn("image", str(path)))
    for source in (path, f"file://{path}", data, url):
        again = keeping.request(turn("image", source))
        same(again, first)
        assert again.num_encoded == 0
    assert prepared == ["picture_item"]
    save(path, 6)  # another picture under the same name
    assert keeping.request(turn("image", path)).num_encoded == 1
    assert len(prepared) == 2


def test_other_options_are_another_item(tmp_path: Path, keeping: Pipeline, prepared: list[str]) -> None:
    path = save(tmp_path / "a.png", 5)
    requests = [
        keeping.request(turn("image", path, **how)) for how in ({}, {"max_pixels": 9216}, {}, {"max_pixels": 9216})
    ]
    assert len(prepared) == 2
    same(requests[2], requests[0])
    same(requests[3], requests[1])
    assert len(requests[1].main) < len(requests[0].main)


def test_a_video_is_known_by_its_file(tmp_path: Path, keeping: Pipeline, prepared: list[str]) -> None:
    path = write_video(tmp_path / "video.mp4", 27, 10, 96, 96)
    first = keeping.request(turn("video", str(path), nframes=4))
    same(keeping.request(turn("video", str(path), nframes=4)), first)
    assert prepared == ["video_item"]
    os.utime(path)
    same(keeping.request(turn("video", str(path), nframes=4)), first)
    assert len(prepared) == 2


def test_frames_are_known_together(tmp_path: Path, keeping: Pipeline, prepared: list[str]) -> None:
    frames = [save(tmp_path / f"{i}.png", i) for i in range(3)]
    for source in (str(tmp_path), [str(frame) for frame in frames]):
        first = keeping.request(turn("video", source))
        same(keeping.request(turn("video", source)), first)
    assert len(prepared) == 2
    save(frames[1], 9)
    assert keeping.request(turn("video", str(tmp_path))).num_encoded == 1


def test_pixels_in_memory_are_prepared_again_but_not_encoded(keeping: Pipeline, prepared: list[str]) -> None:
    image = shapes_scene(Random(5), 160, 128, 3).image
    first = keeping.request(turn("image", image))
    again = keeping.request(turn("image", np.asarray(image)))
    same(again, first)
    assert (first.num_encoded, again.num_encoded, len(prepared)) == (1, 0, 2)


def test_rows_that_are_gone_are_made_again(tmp_path: Path, bundle: Bundle, prepared: list[str]) -> None:
    forgetful = Pipeline(Encoder.from_bundle(bundle, threads=1), cache=EmbeddingCache(1000))
    path = save(tmp_path / "a.png", 5)
    first, again = (forgetful.request(turn("image", path)) for _ in range(2))
    same(again, first)
    assert (again.num_encoded, len(prepared)) == (1, 2)


def test_known_and_new_items_stay_in_order(tmp_path: Path, keeping: Pipeline, pipeline: Pipeline) -> None:
    paths = [save(tmp_path / f"{i}.png", i) for i in range(3)]
    keeping.request(turn("image", paths[1]))
    content = [{"type": "image", "image": str(path)} for path in paths]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]}]
    ours, whole = keeping.request(messages), pipeline.request(messages)
    assert ours.num_encoded == 2
    np.testing.assert_array_equal(ours.input_ids, whole.input_ids)
    np.testing.assert_allclose(ours.main, whole.main, atol=1e-5 * float(np.abs(whole.main).max()))


def test_what_was_seen_is_bounded_and_holds_no_pixels(tmp_path: Path, pipeline: Pipeline) -> None:
    (item,) = pipeline.items(turn("image", save(tmp_path / "a.png", 5)))
    seen = SeenItems(2)
    for name in ("a", "b", "c"):
        seen.put(name, replace(item), name)
    assert [seen.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]
    kept = seen.get("c")
    assert kept is not None
    assert kept.item.patches.size == 0
    assert kept.item.patches.base is None
    assert kept.item.grid_thw == item.grid_thw
