"""Little real videos: encoded with PyAV, each with one trait that readers get wrong."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def picture(index: int, width: int, height: int) -> Image.Image:
    """A gradient with a bright square that moves; the corner at the top left is dark, so a turn shows."""
    ramp = np.linspace(0, 180, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    ramp[..., 1] = np.linspace(0, 120, height)[:, None]
    left = (index * 7) % (width - 16)
    ramp[8:24, left : left + 16] = (250, 240, 30)
    return Image.fromarray(ramp.astype(np.uint8))


def write_video(
    path: Path,
    num_frames: int,
    fps: int,
    width: int = 160,
    height: int = 128,
    codec: str = "libx264",
    pts: list[int] | None = None,
    frames: list[Image.Image] | None = None,
) -> Path:
    """Encode `num_frames` frames, drawn or the first of `frames`; `pts` gives each its time in milliseconds instead of an
    even rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {}
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            image = picture(index, width, height) if frames is None else frames[index].resize((width, height))
            frame = av.VideoFrame.from_image(image)
            if pts is not None:
                frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


MATRICES = {  # a, b, c, d of a display matrix, by what it does to a picture
    Image.Transpose.ROTATE_270: (0, 1, -1, 0),
    Image.Transpose.ROTATE_180: (-1, 0, 0, -1),
    Image.Transpose.ROTATE_90: (0, -1, 1, 0),
    Image.Transpose.FLIP_LEFT_RIGHT: (-1, 0, 0, 1),
    Image.Transpose.FLIP_TOP_BOTTOM: (1, 0, 0, -1),
    Image.Transpose.TRANSPOSE: (0, 1, 1, 0),
    Image.Transpose.TRANSVERSE: (0, -1, -1, 0),
}


def turned(path: Path, turn: Image.Transpose) -> Path:
    """Set the display matrix of an MP4's video track, as a phone held upright or its front camera does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of times, ids and volume stand before the matrix
    a, b, c, d = (sign << 16 for sign in MATRICES[turn])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
