"""The pictures and videos that the command line names, and what it says about the videos among them."""

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from contract.errors import InvalidInput
from edge_runtime.items.video_options import WHOLE
from edge_runtime.media.opened_file import unreadable
from edge_runtime.media.source import find, is_address
from edge_runtime.prompts.chat_template import Message

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv", ".wmv", ".3gp",
}  # fmt: skip

ABOUT_VIDEOS = {  # the help of each of VideoOptions; --max-pixels is for pictures, too
    "fps": "frames looked at per second of video",
    "nframes": "frames looked at in all; this or --fps",
    "min_frames": "least frames that --fps may lead to",
    "max_frames": "most frames that --fps may lead to",
    "video_start": "where the part begins that is looked at, in seconds",
    "video_end": "where it ends",
    "min_pixels": "least pixels of a resized frame",
    "total_pixels": "pixels of all frames together",
    "resized_height": "height of a frame in pixels; with --resized-width",
    "resized_width": "its width",
    "sample_fps": "how many frames of a folder make a second",
    "raw_fps": "the rate that their timestamps count in, where it is another",
}


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that may be given a video."""
    videos = parser.add_argument_group("videos", "which frames are looked at, and how large; names as in qwen-vl-utils")
    for name, about in ABOUT_VIDEOS.items():
        kind = int if name in WHOLE else float
        videos.add_argument(_option(name), type=kind, dest=f"video_{name}", metavar="N", help=about)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _path(source: str) -> str:
    """The path of a URL or file; a URL with a bracket without its other half is taken as it is, and refused later."""
    if "://" in source:
        with suppress(ValueError):
            return urlsplit(source).path
    return source


def _is_video(source: str) -> bool:
    """Whether a source is a folder, or its name ends like a video's; all else is a picture."""
    return os.path.isdir(source) or PurePosixPath(_path(source)).suffix.lower() in VIDEO_SUFFIXES


def content_parts(sources: Sequence[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The content part of each source, the videos' with the options of the command line.

    Raises:
        InvalidInput: there is an option for videos, and no source is a video.
    """
    named = {name: getattr(args, f"video_{name}") for name in ABOUT_VIDEOS}
    given = {name: value for name, value in named.items() if value is not None}
    if given and not any(map(_is_video, sources)):
        options = ", ".join(f"{_option(name)} {value}" for name, value in given.items())
        raise InvalidInput(
            f"{options}: for videos only, and none is given: leave it out (a video is a folder of frames, or its name "
            "ends like .mp4)"
        )
    return [
        {"type": "video", "video": source, **given} if _is_video(source) else {"type": "image", "image": source}
        for source in sources
    ]


def check_files(sources: Sequence[str]) -> None:
    """Check before a bundle loads that the files which the sources name are there.

    Raises:
        MediaError: a file is not there or its folder is closed to this user, or a source names no file.
    """
    for source in sources:
        if not is_address(source) and isinstance(path := find(source, "picture"), Path):
            try:
                path.stat()
            except OSError as error:
                raise unreadable(str(path), error) from error


def question_about(part: dict[str, Any], question: str) -> list[Message]:
    """A conversation of one question about one picture or video."""
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
