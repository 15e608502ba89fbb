"""The encoder before the tower: it takes the rows that it knows from the cache, and lets the tower encode the others,
each once.

It asks two questions. Before anybody decodes a source: did the encoder meet this source before, and does the cache
still hold its rows? After that, by the content of the pixels: does the cache hold their rows, from another file or from
disk?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.encoded_item import EncodedItem
from edge_runtime.items.item import Item
from edge_runtime.reuse.embedding_cache import CachedRows, EmbeddingCache, content_key
from edge_runtime.reuse.seen import SeenItems, source_name
from edge_runtime.row_rule import COPIES, RowRule
from edge_runtime.tower.encoder import Encoder


@dataclass(frozen=True)
class PreparedItem:
    """A picture or video ready for the tower, or, where its rows are known already, without its pixels.

    Attributes:
        name: the name of its source, under which the encoder remembers it; None for pixels in memory.
        rows: its rows; None where the encoder must ask the cache by content, or run the tower.
    """

    item: Item
    name: str | None = None
    rows: CachedRows | None = None


@dataclass(frozen=True)
class Encoded:
    """Pictures and videos in prompt order, each with its rows; the tower encoded num_encoded of them, and `ran` says
    what ran each of these, as in Request."""

    items: tuple[Item, ...]
    rows: tuple[EncodedItem, ...]
    num_encoded: int
    ran: tuple[str, ...] = ()


class ReusingEncoder:
    """An encoder that encodes nothing twice. Safe to share between threads.

    Args:
        encoder: the tower.
        cache: where this encoder looks rows up and stores them; None encodes everything.
        rule: which rows of a video travel.
    """

    def __init__(self, encoder: Encoder, cache: EmbeddingCache | None = None, rule: RowRule = COPIES) -> None:
        self.encoder, self.cache, self._rule, self._seen = encoder, cache, rule, SeenItems()

    def name(self, source: Any, options: object) -> str | None:
        """The name of a resolved source; None where the encoder remembers nothing of it.

        Raises:
            MediaError: a frame cannot be read.
        """
        return None if self.cache is None else source_name(source, options)

    def known(self, name: str | None) -> PreparedItem | None:
        """The item of a name that the encoder met before; None where it did not, or the cache has lost its rows."""
        if self.cache is None or name is None or (seen := self._seen.get(name)) is None:
            return None
        rows = self.cache.get(seen.content_key)
        return None if rows is None else PreparedItem(seen.item, name, rows)

    def encode(self, prepared: Sequence[PreparedItem]) -> Encoded:
        """The rows of prepared items; with a cache, the tower encodes equal items once."""
        if self.cache is None:
            embeddings = self.encoder.encode([p.item for p in prepared])
            rows, ran = [CachedRows(pair) for pair in embeddings.by_item()], embeddings.ran
        else:
            rows, ran = self._looked_up(prepared, self.cache)
        numbers = self.encoder.bundle.numbers
        encoded = tuple(
            EncodedItem(
                p.item.is_video,
                p.item.grid_thw,
                *cached.arrays,
                cached.wire_keys,
                numbers,
                self._rule,
                p.item.seconds,
            )
            for p, cached in zip(prepared, rows, strict=True)
        )
        return Encoded(tuple(p.item for p in prepared), encoded, len(ran), ran)

    def _looked_up(
        self, prepared: Sequence[PreparedItem], cache: EmbeddingCache
    ) -> tuple[list[CachedRows], tuple[str, ...]]:
        """The rows of each item, and what ran each item on which the tower ran."""
        new = [p for p in prepared if p.rows is None]
        keys = [content_key(p.item, self.encoder.bundle, self.encoder.runner(p.item)) for p in new]
        found = {key: cache.get(key) for key in keys}
        missing = {key: p.item for key, p in zip(keys, new, strict=True) if found[key] is None}
        embeddings = self.encoder.encode(list(missing.values()))
        found |= {key: cache.put(key, pair) for key, pair in zip(missing, embeddings.by_item(), strict=True)}
        for key, p in zip(keys, new, strict=True):
            if p.name is not None:
                self._seen.put(p.name, p.item, key)
        of_new = (found[key] for key in keys)
        rows = [next(of_new) if p.rows is None else p.rows for p in prepared]
        return [cached for cached in rows if cached is not None], embeddings.ran
