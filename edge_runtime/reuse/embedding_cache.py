"""The embeddings of items that the tower has encoded before; the cache finds them by content.

The key is the SHA-256 of an item's pixels and grid, the encoder's fingerprint and the bundle's precision: the cache
finds the same pixels when they come from another file or in another turn of a conversation, and never finds the rows of
another tower.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from os import PathLike

from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.reuse.embedding_files import EmbeddingFiles
from edge_runtime.tower.encoder import CPU_RUNNER, Rows


def content_key(item: Item, bundle: Bundle, runner: str = CPU_RUNNER) -> str:
    """The name of an item's embeddings, 64 hex digits: SHA-256 over its pixels and what else decides its rows.

    Args:
        runner: what runs the tower for this item, as Encoder.runner says it.
    """
    manifest = bundle.manifest
    facts = f"2 {manifest.card.encoder_fingerprint} {manifest.precision} {item.grid_thw} "
    if runner != CPU_RUNNER:  # it rounds otherwise
        facts += f"{runner} "
    if item.arranged is not None:  # the same tiles can become other rows
        facts += f"{item.arranged} "
    if item.seconds is not None:  # the same rows have another name on servers
        facts += f"{item.seconds} seconds "
    return hashlib.sha256(facts.encode() + item.digest).hexdigest()


@dataclass(frozen=True)
class CachedRows:
    """The rows of an item, and their names on servers; this device hashes each name only once.

    Attributes:
        arrays: main float32 (N, H) and deepstack float32 (L, N, H).
        wire_keys: the names, as in EncodedItem.wire_keys.
    """

    arrays: Rows
    wire_keys: dict[tuple[str, bool], str] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


class EmbeddingCache:
    """Rows by key in memory, and in a folder where the caller names one. Safe to share between threads.

    Args:
        max_bytes: the most bytes of memory for rows; the cache drops the longest unused first. The rows of a 512 x 512
            picture of a 2B model take 8 MiB.
        folder: where rows outlive the process; None keeps them in memory only.
        max_disk_bytes: the most bytes that the files in that folder take together.

    Raises:
        InvalidInput: the cache cannot make the folder.
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
        self._rows: OrderedDict[str, CachedRows] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> CachedRows | None:
        """The rows of a key, or None."""
        with self._lock:
            if (cached := self._rows.get(key)) is not None:
                self._rows.move_to_end(key)
                return cached
        if self._files is not None and (arrays := self._files.get(key)) is not None:
            return self._hold(key, arrays)
        return None

    def put(self, key: str, arrays: Rows) -> CachedRows:
        """Store a copy of the rows of a key, and return the copy; it is read-only, because requests share it."""
        own = (arrays[0].copy(), arrays[1].copy())
        cached = self._hold(key, own)
        if self._files is not None:
            self._files.put(key, own)
        return cached

    def _hold(self, key: str, arrays: Rows) -> CachedRows:
        for array in arrays:
            array.setflags(write=False)
        with self._lock:
            if (cached := self._rows.get(key)) is not None:
                return cached
            cached = self._rows[key] = CachedRows(arrays)
            self.num_bytes += cached.num_bytes
            while self.num_bytes > self.max_bytes:
                _, old = self._rows.popitem(last=False)
                self.num_bytes -= old.num_bytes
        return cached
