"""Which rows belong to which picture or video, and the name each has by its content.

Rows stand in prompt order, pictures and videos mixed; grids stand by kind. The key of an item is a hash of its bytes as
they travel, so both machines compute the same key, and nobody can name an item that he does not have.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.codecs.codec import Arrays, decode
from contract.codecs.numbers import CodecNumbers
from contract.grids import item_rows
from contract.rows import RowMasks


@dataclass(frozen=True)
class ItemRows:
    """A picture or video of a prompt: rows are its places among the embedding rows, grid_thw is its grid in patches."""

    is_video: bool
    grid_thw: tuple[int, int, int]
    rows: slice


def is_pad(input_ids: NDArray[np.int64], card: ModelCard) -> NDArray[np.bool_]:
    """Which tokens of input_ids int64 (S,) stand for an embedding row, bool (S,)."""
    return np.isin(input_ids, card.pad_token_ids)


def prompt_items(
    input_ids: NDArray[np.int64], image_grid_thw: NDArray[np.int64], video_grid_thw: NDArray[np.int64], card: ModelCard
) -> list[ItemRows]:
    """The items of a checked prompt, in prompt order: input_ids int64 (S,), both grids int64 (k, 3) in patches."""
    pads = input_ids[is_pad(input_ids, card)]  # (N,)
    grids = {False: iter(image_grid_thw.tolist()), True: iter(video_grid_thw.tolist())}
    items: list[ItemRows] = []
    start = 0
    while start < len(pads):
        is_video = bool(pads[start] == card.video_token_id)
        t, h, w = next(grids[is_video])
        end = start + item_rows((t, h, w), card)
        items.append(ItemRows(is_video, (t, h, w), slice(start, end)))
        start = end
    return items


def item_key(
    fingerprint: str,
    item: ItemRows,
    *arrays: NDArray[np.generic],
    codec: str = "",
    masks: RowMasks | None = None,
    seconds: float | None = None,
) -> str:
    """Name of an item, 64 hex digits: SHA-256 over the fingerprint, kind, grid, types, codec, masks, seconds and bytes.

    Args:
        arrays: the item's rows as they travel: main (n, H) and deepstack (L, n, H), or values and scales (1+L, n).
        codec: name and hash of its numbers; empty for floats and int8.
        masks: which rows travel; None where all do.
        seconds: the time from one temporal patch of a video to the next; None where the positions do not follow it.
    """
    kind = "video" if item.is_video else "image"
    types = " ".join(f"{array.dtype.str}{list(array.shape)}" for array in arrays) + (f" codec {codec}" if codec else "")
    types += " kept copied" if masks is not None else ""
    types += "" if seconds is None else f" seconds {float(seconds)!r}"
    digest = hashlib.sha256(f"edge-vlm 1 {fingerprint} {kind} {item.grid_thw} {types}\n".encode())
    for array in (*(() if masks is None else (masks.kept, masks.copied)), *arrays):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def part(arrays: Arrays, rows: slice) -> Arrays:
    """Some rows of a pair as it travels, without a copy: rows are the first axis of main, the second of all others."""
    first, second = arrays
    return (first[:, rows] if first.ndim == 3 else first[rows]), second[:, rows]


@dataclass(frozen=True, eq=False)
class ItemTensors:
    """An item with its tensors as they travel.

    `key` identifies it, and copies share the key; the key's first reader waits for the hash.

    Attributes:
        fingerprint: name of the encoder that made the rows.
        arrays: main (n, H) and deepstack (L, n, H), or what a codec made of them and the scales (1+L, n).
        codec: name and hash of its numbers; empty for floats and int8.
        masks: which of its rows the arrays hold; None where they hold all.
        seconds: the time from one temporal patch of a video to the next; None where the family counts no time.
    """

    fingerprint: str
    is_video: bool
    grid_thw: tuple[int, int, int]
    arrays: Arrays
    codec: str = ""
    masks: RowMasks | None = None
    seconds: float | None = None
    _keys: list[str] = field(default_factory=list, repr=False)
    # each item has its own lock: cached_property of Python 3.11 lets one item wait for another item's hash
    _hashing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def key(self) -> str:
        with self._hashing:
            if not self._keys:
                rows = slice(0, self.arrays[1].shape[1])
                item = ItemRows(self.is_video, self.grid_thw, rows)
                self._keys.append(
                    item_key(
                        self.fingerprint,
                        item,
                        *self.arrays,
                        codec=self.codec,
                        masks=self.masks,
                        seconds=self.seconds,
                    )
                )
        return self._keys[0]

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays) + (self.masks.num_bytes if self.masks is not None else 0)

    @property
    def num_rows(self) -> int:
        """Its rows in the prompt."""
        return self.arrays[1].shape[1] if self.masks is None else self.masks.num_kept

    def num_decoded_bytes(self, row_values: int) -> int:
        """The bytes that `floats` takes beyond what travelled: 0 where it gives the arrays as they are.

        Args:
            row_values: (1+L)*H, the values of a row.
        """
        if self.codec or self.arrays[0].dtype == np.int8:
            return self.num_rows * row_values * 4
        has_copies = self.masks is not None and bool(self.masks.copied.any())
        return self.num_rows * row_values * self.arrays[0].itemsize if has_copies else 0

    def floats(self, numbers: CodecNumbers | None) -> Arrays:
        """Main (num_rows, H) and deepstack (L, num_rows, H), copied rows filled in.

        Raises:
            InvalidInput: the arrays are damaged.
            NotFound: this server lacks the numbers of the item's codec.
        """
        rows = decode(self.arrays, self.codec, numbers)
        return rows if self.masks is None else self.masks.filled(rows)


def joined(pairs: Sequence[Arrays]) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Main (N, H) and deepstack (L, N, H) of pairs, one pair after the other; it does not copy a single pair."""
    if len(pairs) == 1:
        return pairs[0]
    mains, levels = zip(*pairs, strict=True)
    return np.concatenate(mains), np.concatenate(levels, axis=1)
