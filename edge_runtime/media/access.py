"""What the media of a message may be read from: any file or one folder's, and addresses only where that was allowed.

Messages may come from others (a gateway passes them on), so a name is judged where it leads: links and `..` are
followed first, and what was judged is what is opened. The names are vLLM's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import MediaError
from edge_runtime.media.fetch import Fetcher
from edge_runtime.media.source import find

MAX_FRAMES = 1 << 12  # of a list or a folder; the bundle allows fewer


@dataclass(frozen=True)
class MediaAccess:
    """Reads nothing but what it was told it may.

    Attributes:
        fetch: reads http and https URLs; None refuses them.
        allowed_local_media_path: the folder files must lie in, links followed; None for any file, "" for none.
    """

    fetch: Fetcher | None = None
    allowed_local_media_path: str | os.PathLike[str] | None = None

    def __call__(self, source: Any, kind: str) -> Any:
        """The source, with URLs as the bytes that were fetched and names of files as the files they lead to.

        Args:
            source: a path, URL, bytes, picture, array, or a list of them (the frames of a video).
            kind: "picture" or "video", for messages.

        Raises:
            MediaError: it may not or cannot be read.
        """
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            if self.fetch is None:
                raise MediaError(
                    f"{source} is not fetched: fetching is off (Pipeline(fetch=Fetcher()) or --fetch allows it)"
                )
            return self.fetch(source)
        if isinstance(source, str | os.PathLike):
            return source if self.allowed_local_media_path is None else self._inside(find(source, kind))
        if isinstance(source, Sequence) and not isinstance(source, bytes):
            return [self(frame, "picture") for frame in _few(source)]
        return source

    def _inside(self, found: Path | bytes) -> Any:
        if isinstance(found, bytes):
            return found
        allowed = os.fspath(self.allowed_local_media_path or "")
        if not allowed:
            raise MediaError("files are not read here: send the bytes as a data: URL")
        try:
            real = found.resolve()
            if not real.is_relative_to(Path(allowed).resolve()):
                raise MediaError(f"{found} is not read: it must lie in allowed_local_media_path, {allowed}")
            if real.is_dir():  # a folder of frames, each of which may be a link
                return [self._inside(path) for path in _few(frame_files(real))]
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            raise MediaError(f"{found} cannot be read: {error}") from error
        return real


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, by name; hidden files are none."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _few(frames: Sequence[Any]) -> Sequence[Any]:
    if len(frames) > MAX_FRAMES:
        raise MediaError(f"video has {len(frames)} frames, up to {MAX_FRAMES} are allowed: sample fewer")
    return frames
