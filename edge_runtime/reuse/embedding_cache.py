"""Embeddings of what was encoded before, found by content.

The key is the SHA-256 of an item's pixels and grid, the encoder's fingerprint and the bundle's precision: the same
picture in another file, size or turn of a conversation is found, and another tower's rows never are.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from os import PathLike

from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.reuse.embedding_files import EmbeddingFiles, Rows


def content_key(item: Item, bundle: Bundle) -> str:
    """Name of an item's embeddings, 64 hex digits."""
    manifest = bundle.manifest
    facts = f"2 {manifest.card.encoder_fingerprint} {manifest.precision} {item.grid_thw} "
    return hashlib.sha256(facts.encode() + item.digest).hexdigest()


@dataclass(frozen=True)
class Kept:
    """Rows of an item, and the names they have on servers (EncodedItem.keys), which are hashed only once."""

    rows: Rows
    wire_keys: dict[tuple[str, bool], str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.rows)


class EmbeddingCache:
    """Rows by key in memory, and in a folder where one is given. Safe to share between threads.

    Args:
        max_bytes: memory the rows may take; the longest unused go first. A 512 x 512 picture of a 2B model takes 8 MiB.
        folder: where rows outlive the process; None keeps them in memory only.
        max_disk_bytes: size of that folder.

    Raises:
        InvalidInput: the folder cannot be made.
    """

    def __init__(
        self,
        max_bytes: int = 256 << 20,
        *,
        folder: str | PathLike[str] | None = None,
        max_disk_bytes: int = 1 << 30,
    ) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._files = EmbeddingFiles(folder, max_disk_bytes) if folder is not None else None
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Rows | None:
        """Main (N, H) and deepstack (L, N, H) of a key, or None."""
        return kept.rows if (kept := self.kept(key)) is not None else None

    def kept(self, key: str) -> Kept | None:
        """The same with its names on servers."""
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        if self._files is not None and (rows := self._files.get(key)) is not None:
            return self._keep(key, Kept(rows))
        return None

    def put(self, key: str, rows: Rows) -> None:
        """Keep a copy of the rows of a key."""
        own = (rows[0].copy(), rows[1].copy())
        self._keep(key, Kept(own))
        if self._files is not None:
            self._files.put(key, own)

    def _keep(self, key: str, new: Kept) -> Kept:
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                return kept
            self._kept[key] = new
            self.num_bytes += new.nbytes
            while self.num_bytes > self.max_bytes:
                _, old = self._kept.popitem(last=False)
                self.num_bytes -= old.nbytes
        return new
