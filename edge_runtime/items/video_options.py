"""Which frames of a video the model looks at, and at what size; the options have the names of qwen-vl-utils.

This module chooses frames by index, as qwen-vl-utils and transformers do: it samples a video of variable frame rate
evenly over its frames, and a frame's time is its index over the average rate. Where an option is None the bundle's
processor files decide.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import MediaError
from contract.preprocessing import VideoProcessing
from edge_runtime.items.options import check_numbers, options_of
from edge_runtime.items.resize import MAX_TOKENS, frame_size, picture_size, video_size

WHOLE = (
    "nframes",
    "min_frames",
    "max_frames",
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "resized_height",
    "resized_width",
)
OF_FILES = ("fps", "nframes", "min_frames", "max_frames", "video_start", "video_end")
OF_FRAMES = ("sample_fps", "raw_fps")
FOR_FILES = "a video file has its own rate; fps says how many of its frames are looked at"
FOR_FRAMES = "the frames of a list or folder are all looked at; sample_fps says how fast they follow"


@dataclass(frozen=True)
class VideoOptions:
    """What a message may say about a video.

    Attributes:
        fps: how many frames the model looks at per second of video.
        nframes: how many frames the model looks at in all; give it or fps.
        min_frames, max_frames: bounds of the number that follows from fps.
        video_start, video_end: the part of the video that the model looks at, in seconds.
        min_pixels, max_pixels: bounds of the pixels of one resized frame.
        total_pixels: the budget of all temporal patches together. Any of these three puts qwen-vl-utils' rule in the
            place of the bundle's own budget.
        resized_height, resized_width: the size of a frame itself, rounded to whole merge blocks; both or none.
        sample_fps: how many frames of a list or folder make a second.
        raw_fps: the rate in which the timestamps of such frames count, where it is another.

    Raises:
        MediaError: a value is no number or is not positive (video_start and video_end may be 0), only one of
            resized_height and resized_width is there, or fps comes with nframes.
    """

    fps: float | None = None
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start: float | None = None
    video_end: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    sample_fps: float | None = None
    raw_fps: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self, WHOLE, from_zero=("video_start", "video_end"))
        if self.fps is not None and self.nframes is not None:
            raise MediaError(f"fps is {self.fps} and nframes is {self.nframes}: give one of them")

    @classmethod
    def of(cls, part: dict[str, Any]) -> "VideoOptions":
        """The options among the keys of a content part."""
        return options_of(cls, part)

    def check_source(self, is_file: bool) -> None:
        """Check that every option means something for a file, or else for frames that the caller has chosen.

        Raises:
            MediaError: an option means nothing there.
        """
        for name in OF_FRAMES if is_file else OF_FILES:
            if (value := getattr(self, name)) is not None:
                raise MediaError(f"{name} is {value} and has no meaning here: {FOR_FILES if is_file else FOR_FRAMES}")

    def indices(self, num_frames: int, source_fps: float, how: VideoProcessing) -> NDArray[np.int64]:
        """The indices of the chosen frames, int64 (n,), ascending, out of `num_frames` at `source_fps` per second.

        Raises:
            MediaError: the part of the video is empty, or the options ask for more frames than there are or may be.

        The choice is `sample_frames` of transformers' Qwen3-VL video processor.
        """
        first, last = self.part(num_frames, source_fps)
        count = self.count(last - first + 1, source_fps, how)
        return np.linspace(first, last, count).round().astype(np.int64)

    def part(self, num_frames: int, source_fps: float) -> tuple[int, int]:
        """The first and the last frame between video_start and video_end, out of `num_frames`.

        Raises:
            MediaError: there is no frame between them.

        The rule is `calculate_video_frame_range` of qwen-vl-utils (a part of one frame is allowed here).
        """
        first, last = 0, num_frames - 1
        if self.video_start is not None:
            first = math.ceil(min(self.video_start, num_frames / source_fps) * source_fps)
        if self.video_end is not None:
            last = min(math.floor(self.video_end * source_fps), last)
        if last < first:
            raise MediaError(
                f"video_start {self.video_start} to video_end {self.video_end} holds no frame of a video of "
                f"{num_frames} frames at {source_fps:g} a second: give seconds inside it"
            )
        return first, last

    def count(self, total: int, source_fps: float, how: VideoProcessing) -> int:
        """How many of `total` frames the model looks at.

        Raises:
            MediaError: the options ask for more frames than there are or may be.
        """
        most = how.max_frames if self.max_frames is None else self.max_frames
        if max(most, self.nframes or 0) > how.max_frames:
            raise MediaError(f"{max(most, self.nframes or 0)} frames are asked for, up to {how.max_frames} are allowed")
        least = how.min_frames if self.min_frames is None else self.min_frames
        fps = how.fps if self.fps is None else self.fps
        if self.nframes is not None:
            if self.nframes > total:
                raise MediaError(f"nframes is {self.nframes}, the video has {total} frames there: ask for fewer")
            return self.nframes
        if fps is not None:
            return min(max(int(total / source_fps * fps), least), most, total)
        # transformers repeats frames here where the video has too few
        return min(max(total, least), most) if how.num_frames is None else how.num_frames

    @property
    def is_bundles_size(self) -> bool:
        """Whether the bundle's budget decides the size of a frame."""
        given = (self.min_pixels, self.max_pixels, self.total_pixels, self.resized_height, self.resized_width)
        return all(value is None for value in given)

    def size(
        self,
        num_frames: int,
        height: int,
        width: int,
        factor: int,
        depth: int,
        how: VideoProcessing,
        device_pixels: int | None = None,
    ) -> tuple[int, int]:
        """The height and width, in pixels, to which the family resizes each of `num_frames` frames.

        Args:
            height, width: a frame's own, in pixels.
            factor: pixels of a merge block's side; both results are multiples of it.
            depth: frames of a temporal patch.
            how: the bundle's bounds.
            device_pixels: the most pixels of one frame, whatever the options say; None sets no limit.

        Raises:
            MediaError: the aspect ratio is above 200, or min_pixels is above max_pixels.
        """
        if self.resized_height is not None and self.resized_width is not None:
            most = min(device_pixels or how.max_pixels, MAX_TOKENS * factor**2)
            return picture_size(self.resized_height, self.resized_width, factor, None, most)
        bounds = [bound for bound in (self.max_pixels, device_pixels) if bound is not None]
        if self.min_pixels is self.max_pixels is self.total_pixels is None:
            frames = max(num_frames, depth)
            most = how.max_pixels
            if how.max_frame_tokens is not None:
                least_of_one = int(how.min_pixels * 1.05)
                most = frames * max(min(how.max_frame_tokens * factor**2, most // frames), least_of_one)
            most = min([most, *[bound * frames for bound in bounds]])
            return video_size(frames, height, width, factor, depth, min(how.min_pixels, most), most)
        padded = num_frames + -num_frames % depth
        most_of_one = min(bounds, default=None)
        return frame_size(padded, height, width, factor, self.min_pixels, most_of_one, self.total_pixels)


def timestamps(indices: NDArray[np.int64], source_fps: float, depth: int) -> tuple[float, ...]:
    """The seconds of each temporal patch: the mean of its first and last frame's; a short tail repeats the last index.

    The rule is `_calculate_timestamps` of transformers' Qwen3-VL processor.
    """
    padded = [*indices.tolist(), *[int(indices[-1])] * (-len(indices) % depth)]
    seconds = [index / source_fps for index in padded]
    return tuple((seconds[i] + seconds[i + depth - 1]) / 2 for i in range(0, len(seconds), depth))
