"""The pictures and videos that the encoder met before, by their source: a client sends them again with every turn of a
conversation, and the device should not decode and resize them again for it.

SeenItems remembers facts, not pixels; the rows stand in the embedding cache. It knows a picture by its bytes, a video
file or a folder by the identity, size and time of its files, because a video takes seconds to read.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from edge_runtime.items.item import Item
from edge_runtime.media.frames import Frames
from edge_runtime.media.opened_file import OpenedFile

MAX_SEEN = 1024


@dataclass(frozen=True)
class Seen:
    """An item without its pixels, and the key of its rows in the embedding cache."""

    item: Item
    content_key: str


def source_name(source: Any, options: object) -> str | None:
    """The name of a resolved source under some options, 64 hex digits; None for pixels in memory: nobody decodes them.

    Raises:
        MediaError: a frame cannot be read.
    """
    facts = _facts(source)
    return None if facts is None else hashlib.sha256(repr(options).encode() + facts).hexdigest()


def _facts(source: Any) -> bytes | None:
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    if isinstance(source, OpenedFile):
        return repr((source.name, *source.identity)).encode()
    if isinstance(source, Frames):
        if source.identity is not None:
            return repr(source.identity).encode()
        frames = [_facts(frame) for frame in source]
        return b"".join(filter(None, frames)) if None not in frames else None
    return None


class SeenItems:
    """The items that the device prepared last, by name. Safe to share between threads."""

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
