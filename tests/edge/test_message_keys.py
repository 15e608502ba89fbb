"""Every object of a message knows its keys: a slip is answered with the nearest name, never ignored."""

from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidInput, MediaError
from edge_runtime import Pipeline
from tests.edge.video_files import write_video

FRAMES = [np.zeros((64, 64, 3), np.uint8)] * 2
PICTURE: dict[str, Any] = {"type": "image", "image": FRAMES[0]}
LINK = "data:image/png;base64,AAAA"


def ask(pipeline: Pipeline, part: dict[str, Any], **message: Any) -> None:
    pipeline.request([{"role": "user", "content": [part], **message}])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({**PICTURE, "max_pixel": 9216}, "'max_pixel' is unknown, did you mean 'max_pixels'"),
        ({**PICTURE, "fps": 2}, "fps has no meaning here: it is for videos"),
        ({**PICTURE, "zoom": 2}, "'zoom' is unknown, known are cache_control, image"),
        (
            {"type": "image_url", "image_url": {"url": LINK, "max_pixels": 9216}},
            "max_pixels has no meaning here: it stands",
        ),
        ({"type": "image_url", "image_url": {"urls": LINK}}, "'urls' is unknown, did you mean 'url'"),
        ({"type": "video", "video": FRAMES, "sample_fsp": 1}, "did you mean 'sample_fps'"),
        ({"type": "video", "video": FRAMES, "fps": 1}, "fps is 1 and has no meaning here: the frames of a list"),
        ({"type": "video", "video": FRAMES, "nframes": 2}, "nframes is 2 and has no meaning here"),
        ({"type": "text", "text": "Hello", "txt": "Hello"}, "'txt' is unknown, did you mean 'text'"),
    ],
)
def test_a_slip_in_a_part(pipeline: Pipeline, part: dict[str, Any], said: str) -> None:
    with pytest.raises(MediaError, match=said):
        ask(pipeline, part)


def test_a_slip_in_a_message(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput, match=r"messages\[0\]: the key 'tool_call' is unknown, did you mean 'tool_calls'"):
        ask(pipeline, PICTURE, tool_call=[])


def test_null_says_nothing(pipeline: Pipeline) -> None:
    ask(pipeline, {**PICTURE, "zoom": None}, mood=None)


def test_the_rate_of_frames_means_nothing_to_a_file(pipeline: Pipeline, tmp_path: Any) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, 6, fps=3)
    with pytest.raises(MediaError, match="sample_fps is 1 and has no meaning here: a video file has its own rate"):
        ask(pipeline, {"type": "video", "video": str(path), "sample_fps": 1})
