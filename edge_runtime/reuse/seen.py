"""Pictures and videos met before, by where they came from: a conversation shows them again with every turn, and none
of them should be decoded and resized again for it.

Only facts are kept, not pixels; the rows stand in the embedding cache. A picture is known by its bytes, a video file or
a folder by the identity, size and time of its files, because reading one can take seconds.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edge_runtime.items.item import Item
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.source import find, read
from edge_runtime.prompts.content import MediaPart

MAX_SEEN = 1024


@dataclass(frozen=True)
class Seen:
    """An item without its pixels, and the key of its rows in the embedding cache."""

    item: Item
    content_key: str


def source_name(part: MediaPart) -> str | None:
    """Name of what a part shows; None for pixels in memory, which take no decoding.

    Raises:
        MediaError: the source cannot be read.
    """
    facts = _facts(part.source, isinstance(part.options, VideoOptions))
    if facts is None:
        return None
    return hashlib.sha256(repr(part.options).encode() + facts).hexdigest()


def _facts(source: Any, is_video: bool) -> bytes | None:
    if isinstance(source, str | bytes | os.PathLike):
        found = find(source, "video" if is_video else "picture")
        if isinstance(found, Path):
            return _file_facts(found) if is_video else hashlib.sha256(read(found)).digest()
        return hashlib.sha256(found).digest()
    if isinstance(source, Sequence):
        frames = [_facts(frame, False) for frame in source]
        return b"".join(filter(None, frames)) if None not in frames else None
    return None


def _file_facts(path: Path) -> bytes | None:
    try:
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(str(p), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for p in paths if (s := p.stat())]
    except OSError:
        return None  # the one who reads it says what is wrong
    return repr(stats).encode()


class SeenItems:
    """The last items that were prepared, by name. Safe to share between threads."""

    def __init__(self, max_items: int = MAX_SEEN) -> None:
        self._max_items = max_items
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._lock = Lock()

    def get(self, name: str) -> Seen | None:
        with self._lock:
            if (seen := self._seen.get(name)) is not None:
                self._seen.move_to_end(name)
            return seen

    def put(self, name: str, item: Item, content_key: str) -> None:
        width = item.patches.shape[1:]
        with self._lock:
            self._seen[name] = Seen(replace(item, patches=np.zeros((0, *width), np.uint8)), content_key)
            while len(self._seen) > self._max_items:
                self._seen.popitem(last=False)
