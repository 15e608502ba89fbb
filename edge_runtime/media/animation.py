"""An animated WebP or PNG file as a video: FFmpeg cannot read the first and knows no times of the second.

Pillow composes the frames and says how long each one stays. The family samples them by index over the average rate, as
it samples the frames of any video of variable rate.
"""

import io
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import MediaError
from edge_runtime.media.picture import MAX_DECODED_PIXELS, rgb

FORMATS = ("WEBP", "PNG")
MAX_ANIMATION_FRAMES = 1 << 14
UNSAID_MS = 100.0  # how long browsers show a frame of 0 ms


def is_animation(start: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of a WebP or PNG file."""
    return start.startswith(b"\x89PNG\r\n\x1a\n") or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


class Animation:
    """An opened animation; it has the methods and attributes of VideoFile.

    Args:
        data: the bytes of a WebP or PNG file.
        name: for error messages.

    Attributes:
        num_frames: how many frames the file has.
        fps: the average rate, frames per second.

    Raises:
        MediaError: the file is a still picture, is cut short, or is too large.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        try:
            self._image = Image.open(io.BytesIO(data), formats=FORMATS)
            self.num_frames = int(getattr(self._image, "n_frames", 1))
        except Exception as error:  # Pillow's readers raise errors of any type
            raise self._damaged(error) from error
        if self.num_frames < 2:
            raise MediaError(f"{name} is a picture and does not move: send it as a picture")
        pixels = self._image.width * self._image.height
        if pixels > MAX_DECODED_PIXELS or self.num_frames > MAX_ANIMATION_FRAMES:
            raise MediaError(
                f"{name} is too large: {pixels} pixels a frame, {self.num_frames} frames; up to {MAX_DECODED_PIXELS} "
                f"and {MAX_ANIMATION_FRAMES} are allowed"
            )
        shown_ms = [float(image.info.get("duration") or UNSAID_MS) for image in self._each(self.num_frames - 1)]
        self.fps = 1000.0 * self.num_frames / sum(shown_ms)

    def __enter__(self) -> "Animation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._image.close()

    def frames(self, indices: NDArray[np.int64]) -> Iterator[Image.Image]:
        """The frames of ascending indices as RGB pictures; transparent pixels are white.

        Args:
            indices: int64 (frames,), ascending, each one once.

        Raises:
            MediaError: a frame cannot be decoded.
        """
        wanted = set(indices.tolist())
        for place, image in enumerate(self._each(int(indices[-1]))):
            if place in wanted:
                yield rgb(image)

    def _each(self, last: int) -> Iterator[Image.Image]:
        for place in range(last + 1):
            try:
                self._image.seek(place)
                self._image.load()
            except Exception as error:
                raise self._damaged(error) from error
            yield self._image

    def _damaged(self, error: Exception) -> MediaError:
        return MediaError(f"{self.name} cannot be decoded: {error or type(error).__name__}; is it a video, and whole?")
