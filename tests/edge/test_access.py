"""Messages from others: which files and addresses they may name, and which sizes they may ask for."""

import base64
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processor import load_processor  # noqa: F401  before qwen-vl-utils  # isort: skip
from qwen_vl_utils.vision_process import smart_resize

from contract.errors import InvalidInput, MediaError
from contract.preprocessing import ImageProcessing, VideoProcessing
from edge_runtime import Encoder, Pipeline
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.access import MediaAccess
from edge_runtime.media.opened_file import open_within
from tests.edge.video_files import picture

LONG = VideoProcessing(4096, 1 << 40, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 2.0, 4, 768)
WIDE = ImageProcessing(65_536, 1 << 40, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def user(**part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An allowed folder with a picture and a folder of frames, and a secret beside it that links lead to."""
    (tmp_path / "allowed" / "frames").mkdir(parents=True)
    (tmp_path / "allowed-not").mkdir()
    for path in (
        "secret.png",
        "allowed/open.png",
        "allowed-not/near.png",
        "allowed/frames/0.png",
        "allowed/frames/1.png",
    ):
        picture(1, 96, 96).save(tmp_path / path)
    (tmp_path / "allowed" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "allowed" / "inner.png").symlink_to(tmp_path / "allowed" / "open.png")
    (tmp_path / "allowed" / "out").symlink_to(tmp_path)
    (tmp_path / "allowed" / "circle.png").symlink_to(tmp_path / "allowed" / "circle.png")
    (tmp_path / "allowed" / "mixed").mkdir()
    picture(1, 96, 96).save(tmp_path / "allowed" / "mixed" / "0.png")
    (tmp_path / "allowed" / "mixed" / "1.png").symlink_to(tmp_path / "secret.png")
    return tmp_path


def test_files_of_the_allowed_folder_are_read(pipeline: Pipeline, place: Path) -> None:
    bound = Pipeline(pipeline.encoder, allowed_local_media_path=place / "allowed")
    path = place / "allowed" / "open.png"
    data = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    for source in (str(path), path, path.as_uri(), f"{place}/allowed/../allowed/open.png", data, path.read_bytes()):
        assert bound.items(user(image=source))[0].grid_thw == (1, 6, 6)
    assert bound.items(user(image=str(place / "allowed" / "inner.png")))[0].grid_thw == (1, 6, 6)
    assert bound.items(user(video=str(place / "allowed" / "frames")))[0].grid_thw == (1, 6, 6)
    assert bound.items(user(video=[str(path), data]))[0].grid_thw == (1, 6, 6)


@pytest.mark.parametrize(
    "name",
    [
        "secret.png",
        "allowed/../secret.png",
        "allowed/link.png",
        "allowed/out/secret.png",
        "allowed-not/near.png",
        "none.png",
    ],
)
def test_no_other_file_is_read(pipeline: Pipeline, place: Path, name: str) -> None:
    bound = Pipeline(pipeline.encoder, allowed_local_media_path=str(place / "allowed"))
    path = f"{place}/{name}"
    for part in ({"image": path}, {"image": f"file://{path}"}, {"video": path}, {"video": [path, path]}):
        with pytest.raises(MediaError, match="must lie in allowed_local_media_path"):
            bound.items(user(**part))
    with pytest.raises(MediaError, match="must lie in allowed_local_media_path"):
        bound.items([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"file://{path}"}}]}])


def test_a_frame_may_not_lead_outside(pipeline: Pipeline, place: Path) -> None:
    bound = Pipeline(pipeline.encoder, allowed_local_media_path=place / "allowed")
    with pytest.raises(MediaError, match="must lie in"):
        bound.items(user(video=str(place / "allowed" / "mixed")))
    with pytest.raises(MediaError, match="cannot be read"):
        bound.items(user(image=str(place / "allowed" / "circle.png")))


def test_a_name_that_changes_between_judging_and_opening_leaks_nothing(pipeline: Pipeline, place: Path) -> None:
    """A file of the allowed folder and a link to the secret take turns under one name, as fast as they can."""
    picture(2, 160, 128).save(place / "secret.png")  # another grid than that of what is allowed
    access = MediaAccess(allowed_local_media_path=place / "allowed")
    name, secret = place / "allowed" / "turns.png", (place / "secret.png").read_bytes()
    allowed = (place / "allowed" / "open.png").read_bytes()
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            (place / "allowed" / "file").write_bytes(allowed)
            os.replace(place / "allowed" / "file", name)
            (place / "allowed" / "leads").symlink_to(place / "secret.png")
            os.replace(place / "allowed" / "leads", name)

    thread = threading.Thread(target=swap)
    thread.start()
    read = refused = 0
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline or not (read and refused):
            try:
                data = access(name, "picture")
            except MediaError:
                refused += 1
                continue
            assert data != secret
            assert data == allowed
            read += 1
    finally:
        ended.set()
        thread.join()


def test_a_folder_that_becomes_a_link_leaks_nothing(place: Path) -> None:
    """Judged by name, then exchanged before it is opened: the descent from the allowed folder follows no link."""
    allowed = (place / "allowed").resolve()
    (allowed / "deep").mkdir()
    picture(1, 96, 96).save(allowed / "deep" / "secret.png")
    os.close(open_within(allowed, allowed / "deep" / "secret.png"))
    (allowed / "deep" / "secret.png").unlink()
    (allowed / "deep").rmdir()
    (allowed / "deep").symlink_to(place)
    with pytest.raises(OSError, match=r"deep|directory|links"):
        open_within(allowed, allowed / "deep" / "secret.png")


def test_no_file_at_all(pipeline: Pipeline, place: Path) -> None:
    closed = Pipeline(pipeline.encoder, allowed_local_media_path="")
    with pytest.raises(MediaError, match="files are not read here"):
        closed.items(user(image=str(place / "allowed" / "open.png")))


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"image": 5}, "picture is int"),
        ({"video": {"path": "x"}}, "video is dict"),
        ({"image": "/dev/zero"}, "it is no file"),
        ({"image": "a\0b"}, "no path"),
        ({"image": "A" * 10_000}, "no path"),
        ({"video": ["x.png"] * 5000}, "5000 frames"),
        ({"image": "x.png", "min_pixels": "4"}, "min_pixels is '4'"),
        ({"image": "x.png", "resized_height": 64}, "give both or none"),
        ({"video": "x.mp4", "resized_width": 64}, "give both or none"),
        ({"type": "audio", "audio": "x.wav"}, "has type 'audio', text, image or video is expected"),
        ({"type": "text"}, "has type 'text', text, image or video is expected"),
        ({}, "has type None, text, image or video is expected"),
    ],
)
def test_what_makes_no_sense_is_said_so(pipeline: Pipeline, part: dict[str, Any], says: str) -> None:
    with pytest.raises(MediaError, match=says):
        pipeline.items(user(**part))


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ({"role": "user", "content": "Hello"}, "messages is dict, a list"),
        ("Hello", "messages is str, a list"),
        (["Hello"], "messages holds str"),
        ([{"role": "user", "content": "half \ud800"}], "no character"),
    ],
)
def test_what_are_no_messages_is_said_so(pipeline: Pipeline, messages: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        pipeline.request(messages)


SIDES = st.integers(1, 5000)
MAYBE = st.one_of(st.none(), st.integers(1024, 1 << 22))


@given(SIDES, SIDES, MAYBE, MAYBE)
@settings(max_examples=300, deadline=None)
def test_bounds_of_a_picture_are_those_of_qwen_vl_utils(
    height: int, width: int, low: int | None, high: int | None
) -> None:
    if max(height, width) > 200 * min(height, width) or low is high is None:
        return
    ours = PictureOptions(min_pixels=low, max_pixels=high)
    if (low or 4096) > (high or 16_777_216):
        with pytest.raises(MediaError, match="give a smaller min_pixels"):
            ours.size(height, width, 32, WIDE)
        return
    oracle = smart_resize(height, width, 32, low or 4096, high or 16_777_216)
    assert ours.size(height, width, 32, WIDE) == tuple(max(32, side) for side in oracle)


@given(SIDES, SIDES)
@settings(max_examples=100, deadline=None)
def test_a_size_of_ones_own_is_that_of_qwen_vl_utils(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    options = {"resized_height": height, "resized_width": width}
    assert PictureOptions(**options).size(1, 1, 32, WIDE) == smart_resize(height, width, 32)
    assert VideoOptions(**options).size(4, 9, 9, 32, 2, LONG) == smart_resize(height, width, 32)


def test_frames_of_several_sizes_need_one(pipeline: Pipeline) -> None:
    frames = [picture(0, 96, 96), picture(1, 128, 96)]
    with pytest.raises(MediaError, match="one size is expected"):
        pipeline.items(user(video=frames))
    assert pipeline.items(user(video=frames, resized_height=96, resized_width=96))[0].grid_thw == (1, 6, 6)


def test_a_message_cannot_ask_for_more_than_the_device_allows(pipeline: Pipeline) -> None:
    small = Pipeline(pipeline.encoder, max_pixels=96 * 96)
    huge = {"resized_height": 5000, "resized_width": 5000}
    for part in ({"image": picture(0, 96, 96), **huge}, {"image": picture(0, 96, 96), "max_pixels": 10**9}):
        assert small.items(user(**part))[0].grid_thw == (1, 6, 6)
    assert small.items(user(video=[picture(0, 96, 96)] * 2, **huge))[0].grid_thw == (1, 6, 6)


def test_low_memory_changes_no_embedding(pipeline: Pipeline) -> None:
    items = pipeline.items(user(image=picture(3, 160, 128)))
    low = Encoder.from_bundle(pipeline.encoder.bundle, threads=1, low_memory=True)
    assert abs(low.encode(items).image_embeds - pipeline.encoder.encode(items).image_embeds).max() < 1e-4
