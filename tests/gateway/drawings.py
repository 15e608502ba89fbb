"""Pictures and clips with known answers, as messages carry them."""

import base64
import io
from pathlib import Path
from random import Random
from typing import Any

import av
from PIL import Image

from tiny_model.clips import DrawnClip, moving_clip
from tiny_model.questions import CLAIMED, Question, about_clip, about_scene
from tiny_model.scenes import Scene, shapes_scene


def data_url(image: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, form, **({"quality": 95} if form == "JPEG" else {}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def picture_part(image: Image.Image, form: str = "PNG") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(image, form)}}


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def drawn(seed: int) -> tuple[Scene, list[Question]]:
    """A picture and what the bundled model promises to answer about it."""
    random = Random(seed)
    scene = shapes_scene(random, 160, 128, 3)
    return scene, [question for question in about_scene(random, scene) if question.kind in CLAIMED]


def clip_file(path: Path, clip: DrawnClip) -> Path:
    """The clip as MP4, two frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height = clip.frames[0].size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "8"}
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def moving(path: Path, seed: int) -> tuple[Path, Question]:
    """A video of a shape that moves, and the question where to."""
    random = Random(seed)
    clip = moving_clip(random, 96, 96, 3, 2)
    (question,) = about_clip(random, clip, [])
    return clip_file(path, clip), question


def video_part(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
