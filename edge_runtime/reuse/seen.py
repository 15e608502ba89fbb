"""Pictures and videos met before, by where they came from: a conversation shows them again with every turn, and none
of them should be decoded and resized again for it.

Only facts are remembered, not pixels; the rows stand in the embedding cache. A picture is known by its bytes, a video
file or a folder by the identity, size and time of its files, because reading one can take seconds.
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
    """Name of what a resolved source shows under some options; None for pixels in memory, which take no decoding.

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
