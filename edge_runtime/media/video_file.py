"""Video files to upright frames, through PyAV (extra `video`).

Frames come one at a time, so that memory holds only resized ones. This module opens the file and hands it to FFmpeg as
a stream, and admits only plain containers: a playlist could name other files and addresses.
"""

import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import MediaError, MissingExtra
from edge_runtime.media.access import ANY_FILE
from edge_runtime.media.opened_file import OpenedFile
from edge_runtime.media.picture import MAX_DECODED_PIXELS
from edge_runtime.media.source import Source

try:
    import av
except ImportError as error:
    raise MissingExtra("video files", "video") from error

CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,m4v,flv,ogg,asf,gif,ivf,h264,hevc"
MAX_THREADS = 4  # of one decoder
MAX_SOURCE_FRAMES = 1 << 20  # 9.7 hours at 30 a second
# Signs of a, b, c, d in a display matrix (x' = a x + c y, y' = b x + d y); Pillow's rotations count anticlockwise.
TURNS: dict[tuple[int, ...], Image.Transpose] = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


class VideoFile:
    """An opened video.

    Args:
        source: an opened file or the bytes of one; also a path, file:// or data: URL.

    Attributes:
        num_frames: frames that a player shows; a frame that an edit list discards does not count.
        fps: average rate, frames per second.

    Raises:
        MediaError: the file is no video, is cut short or too large, or its rate is unknown.
        MissingExtra: PyAV is not installed (the import of this module raises it).
    """

    def __init__(self, source: Source | OpenedFile) -> None:
        found = ANY_FILE(source, "video")
        is_file = isinstance(found, OpenedFile)
        self.name = found.name if is_file else "video"
        self._file: BinaryIO = found.stream() if is_file else io.BytesIO(found)
        try:
            with self._stream() as (container, stream):
                # some containers have no average; the guess is FFmpeg's own from time stamps and codec
                rate = stream.average_rate or stream.guessed_rate or stream.base_rate
                declared = stream.frames
                pixels = stream.codec_context.width * stream.codec_context.height
                self._bound(pixels, declared)
                discarded = (packet.is_discard for packet in container.demux(stream) if packet.size)
                packets = list(islice(discarded, MAX_SOURCE_FRAMES + 1))  # a container may not declare the number
                self._bound(pixels, len(packets))
        except BaseException:
            self.close()
            raise
        self.num_frames = len(packets) - sum(packets)
        if not rate or not self.num_frames:
            self.close()
            raise MediaError(
                f"{self.name} has {self.num_frames} frames at {rate} a second: send a video with frames and a rate"
            )
        if len(packets) < declared:
            self.close()
            raise MediaError(f"{self.name} holds {len(packets)} of {declared} frames: it is cut short, send it whole")
        self.fps = float(rate)

    def _bound(self, pixels: int, num_frames: int) -> None:
        if pixels > MAX_DECODED_PIXELS or num_frames > MAX_SOURCE_FRAMES:
            raise MediaError(
                f"{self.name} is too large: {pixels} pixels a frame, {num_frames} frames or more; up to "
                f"{MAX_DECODED_PIXELS} and {MAX_SOURCE_FRAMES} are allowed"
            )

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and end FFmpeg's threads: PyAV frees a decoder only with the cycle that holds it."""
        self._file.close()
        gc.collect()

    @contextmanager
    def _stream(self) -> Iterator[tuple[Any, Any]]:
        """The container from its start, and its video; FFmpeg's errors become MediaError.

        Which stream is the video is FFmpeg's own choice: a cover or a still picture may stand before it.
        """
        self._file.seek(0)
        try:
            with av.open(
                self._file, container_options={"format_whitelist": CONTAINERS}, metadata_errors="replace"
            ) as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise MediaError(f"{self.name} has no video stream: send a file that has one")
                yield container, stream
        except MediaError:
            raise
        except Exception as error:  # PyAV meets damage with errors of any type: AttributeError, UnicodeDecodeError, ...
            why = getattr(error, "strerror", None) or error or type(error).__name__
            raise MediaError(f"{self.name} cannot be decoded: {why}; is it a video, and whole?") from error

    def frames(self, indices: NDArray[np.int64]) -> Iterator[Image.Image]:
        """The frames of ascending indices as RGB pictures, turned and mirrored as the file's display matrix says.

        FFmpeg decodes everything up to the last index, because a seek does not land on an exact index. A frame whose
        matrix says another angle than a quarter turn stays as the file stores it.

        Args:
            indices: int64 (frames,), ascending, each one once.

        Raises:
            MediaError: a frame cannot be decoded.
        """
        wanted, last, seen = set(indices.tolist()), int(indices[-1]), -1
        with self._stream() as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = MAX_THREADS
            stream.codec_context.options = {"max_pixels": str(MAX_DECODED_PIXELS)}  # a later frame may be larger
            for seen, frame in enumerate(container.decode(stream)):
                if seen in wanted:
                    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
                    turn = TURNS.get(_signs(frame))
                    yield image.transpose(turn) if turn is not None else image
                if seen == last:
                    return
        raise MediaError(f"{self.name} gives {seen + 1} frames, frame {last} is needed: is it cut short?")


def _signs(frame: Any) -> tuple[int, ...]:
    """a, b, c, d of a frame's display matrix (nine 32-bit numbers, row by row), each as -1, 0 or 1."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return ()
    matrix = np.frombuffer(bytes(data), np.int32)  # (9,)
    return tuple(np.sign(matrix[[0, 1, 3, 4]]).tolist())
