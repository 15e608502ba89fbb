"""Where the media of a message may come from: any file or one folder's, and URLs only where an option allows them.

MediaAccess turns a source once into bytes, pixels or an opened file; the code after it sees no name any more. Somebody
else may have written the message (a gateway passes it on) and may replace a file by a link meanwhile. So MediaAccess
follows links and `..` by name, judges where they lead, and opens that place from the allowed folder down without
following any link. `allowed_local_media_path` has vLLM's name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import MediaError
from edge_runtime.media.fetch import Fetcher
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile, open_file, open_within, unreadable
from edge_runtime.media.source import find, is_address

Pixels = Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class MediaAccess:
    """Reads only what its options allow.

    Attributes:
        fetch: reads http and https URLs; None refuses them.
        allowed_local_media_path: the folder files must lie in, links followed; None for any file, "" for none.
    """

    fetch: Fetcher | None = None
    allowed_local_media_path: str | os.PathLike[str] | None = None

    def __call__(self, source: Any, kind: str) -> Any:
        """Resolve a source: a picture to bytes or pixels, a video to bytes, an opened file, an array or Frames.

        Args:
            source: a path, URL, bytes, picture, array, or a list of them (the frames of a video). The call returns
                what it resolved before, and what is no source at all, as it is.
            kind: "picture" or "video", for error messages.

        Raises:
            MediaError: the options do not allow the source, or it cannot be read.
        """
        if is_address(source):
            return self._fetched(source)
        if isinstance(source, str | os.PathLike):
            found = find(source, kind)
            return found if isinstance(found, bytes) else self._opened(found, kind)
        if isinstance(source, Sequence) and not isinstance(source, bytes | Frames):
            return Frames([self._fetched(s) if is_address(s) else s for s in source], self._frame)
        return source

    def _frame(self, source: Any) -> Any:
        return self(source, "picture")

    def _fetched(self, url: str) -> bytes:
        if self.fetch is None:
            raise MediaError(f"{url} is not fetched: fetching is off (Pipeline(fetch=Fetcher()) or --fetch allows it)")
        return self.fetch(url)

    def _opened(self, path: Path, kind: str) -> bytes | OpenedFile | Frames:
        allowed = self.allowed_local_media_path
        try:
            if allowed is not None:
                path = self._real(path)
            if kind == "video" and path.is_dir():
                return self._folder(path)
            file = open_file(path) if allowed is None else OpenedFile(self._judged(path), str(path))
        except MediaError:
            raise
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
            raise unreadable(str(path), error) from error
        return file if kind == "video" else file.read()

    def _real(self, path: Path) -> Path:
        """Where the name leads, if that lies in the allowed folder."""
        if not (allowed := os.fspath(self.allowed_local_media_path or "")):
            raise MediaError("files are not read here: send the bytes as a data: URL")
        real = path.resolve()
        if not real.is_relative_to(Path(allowed).resolve()):
            raise MediaError(f"{path} is not read: it must lie in allowed_local_media_path, {allowed}")
        return real

    def _judged(self, real: Path) -> int:
        return open_within(Path(self.allowed_local_media_path or "").resolve(), real)

    def _folder(self, path: Path) -> Frames:
        """The pictures of a folder, sorted by name; a hidden file does not count as a picture."""
        descriptor = os.open(path, os.O_RDONLY) if self.allowed_local_media_path is None else self._judged(path)
        try:
            with os.scandir(descriptor) as entries:
                files = sorted((e.name, e.stat()) for e in entries if e.is_file() and not e.name.startswith("."))
        finally:
            os.close(descriptor)
        identity = tuple((name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in files)
        return Frames([path / name for name, _ in files], self._frame, identity)


ANY_FILE = MediaAccess()
