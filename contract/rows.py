"""Which rows of a picture or video travel: dropped rows have no pad and no bytes, copied rows have a pad and no bytes.

A mask has an entry for every row that the grids ask for. A copied row repeats the row of the same place one frame
before, which may be a copy itself. A dropped row changes no position: every other token keeps the position that it has
in the whole prompt. So `lay_out` restores the whole prompt; Prompt.positions counts there and cuts the dropped rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.codecs.codec import Arrays
from contract.errors import InvalidInput
from contract.grids import item_rows, runs

if TYPE_CHECKING:
    from contract.limits import Limits

KEPT, COPIED = "vision_rows_kept", "vision_rows_copied"
MAX_RESTORED = 8  # times max_prompt_tokens: how long the whole prompt may be

Grid = tuple[int, int, int]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RowMasks:
    """The rows of one item.

    Attributes:
        kept: bool (frames, rows of a frame), rows that have a pad.
        copied: bool of the same shape, kept rows that repeat the frame before.
    """

    kept: Mask
    copied: Mask

    @classmethod
    def whole(cls, num_rows: int) -> "RowMasks":
        """The masks of an item whose rows all travel, bool (1, num_rows)."""
        return cls(np.ones((1, num_rows), np.bool_), np.zeros((1, num_rows), np.bool_))

    @property
    def num_kept(self) -> int:
        return int(self.kept.sum())

    @property
    def is_sent(self) -> Mask:
        """Rows whose bytes travel, bool (frames, rows of a frame)."""
        return self.kept & ~self.copied

    @property
    def num_bytes(self) -> int:
        return self.kept.nbytes + self.copied.nbytes

    def source(self) -> NDArray[np.intp]:
        """For each kept row its place among the sent rows, intp (num_kept,)."""
        sent = self.is_sent
        places = np.where(sent, np.cumsum(sent).reshape(sent.shape) - 1, -1)
        for frame in range(1, len(places)):
            np.copyto(places[frame], places[frame - 1], where=self.copied[frame])
        found: NDArray[np.intp] = places[self.kept]
        return found

    def filled(self, rows: Arrays) -> Arrays:
        """Main (num_kept, H) and deepstack (L, num_kept, H) of the sent rows."""
        source = self.source()
        return rows[0][source], rows[1][:, source]


class MaskReader:
    """The masks of a request, item by item in prompt order.

    Args:
        tensors: KEPT and COPIED, bool (num_rows,), where the client sent them.
        num_rows: how many rows the grids of the sent items ask for.

    Raises:
        InvalidInput: a mask has another length.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], num_rows: int, card: ModelCard) -> None:
        for name in (KEPT, COPIED):
            if name in tensors and tensors[name].size != num_rows:
                raise InvalidInput(
                    f"{name} has {tensors[name].size} entries, the grids ask for {num_rows} rows", check="mask-length"
                )
        self.is_given = KEPT in tensors or COPIED in tensors
        self._card, self._start = card, 0
        if self.is_given:
            self._kept = tensors.get(KEPT, np.ones(num_rows, np.bool_))
            self._copied = tensors.get(COPIED, np.zeros(num_rows, np.bool_))
        self.num_sent = int((self._kept & ~self._copied).sum()) if self.is_given else num_rows

    def next(self, is_video: bool, grid_thw: Grid) -> RowMasks | None:
        """The masks of the next item; None where all of its rows travel.

        Raises:
            InvalidInput: a frame keeps no row, or a copied row has no kept row one frame before.
        """
        if not self.is_given:
            return None
        shape = runs(grid_thw, self._card)
        if is_video:  # a video copies rows from frame to frame, also where all frames stand in one run
            shape = grid_thw[0], shape[0] * shape[1] // grid_thw[0]
        end = self._start + shape[0] * shape[1]
        rows, self._start = slice(self._start, end), end
        kept, copied = (mask[rows].reshape(shape).copy() for mask in (self._kept, self._copied))
        if (empty := np.flatnonzero(~kept.any(axis=1))).size:
            raise InvalidInput(
                f"{KEPT} keeps 0 rows in frame {empty[0]} of an item with grid {list(grid_thw)}, at least 1 is expected",
                check="mask-empty",
            )
        if copied.any() and (not is_video or copied[0].any()):
            what = "frame 0 of a video" if is_video else "a picture"
            raise InvalidInput(f"{COPIED} has rows in {what}, which has no frame before it", check="mask-first")
        if (copied & ~kept).any() or (copied[1:] & ~kept[:-1]).any():
            raise InvalidInput(
                f"{COPIED} has rows that {KEPT} drops, there or one frame before: only kept rows are copied",
                check="mask-copied",
            )
        return None if kept.all() and not copied.any() else RowMasks(kept, copied)


@dataclass(frozen=True, eq=False)
class Layout:
    """A prompt with dropped rows.

    Attributes:
        input_ids: int64 (S,), a pad for each kept row.
        whole_ids: int64 (S',), a pad for each row of the grids.
        is_kept: bool (S',), which of whole_ids stand in input_ids.
        masks: those of each item in prompt order; None where all of its rows travel.
    """

    input_ids: NDArray[np.int64]
    whole_ids: NDArray[np.int64]
    is_kept: Mask
    masks: tuple[RowMasks | None, ...]


def lay_out(
    input_ids: NDArray[np.int64],
    image_grid_thw: NDArray[np.int64],
    video_grid_thw: NDArray[np.int64],
    held: Sequence[tuple[bool, RowMasks | None]],
    reader: MaskReader,
    card: ModelCard,
    limits: "Limits",
    *,
    is_whole: bool,
) -> Layout:
    """Restore the whole prompt.

    Args:
        input_ids: int64 (S,) with a pad for each kept row, or, where is_whole, for each row of the grids.
        image_grid_thw, video_grid_thw: int64 (k, 3) in patches, of all items.
        held: for each item in prompt order whether the server holds it, and the masks of a held one.
        reader: gives the masks of the items that the client sent.

    Raises:
        InvalidInput: input_ids has other pads than kept rows, or the grids ask for more than MAX_RESTORED times
            max_prompt_tokens rows.
    """
    rows = sum(item_rows((t, h, w), card) for grid in (image_grid_thw, video_grid_thw) for t, h, w in grid.tolist())
    if rows > (most := MAX_RESTORED * limits.max_prompt_tokens):
        raise InvalidInput(f"{KEPT} is of {rows} rows, {most} are allowed: send smaller pictures", check="mask-rows")
    places = np.flatnonzero(np.isin(input_ids, card.pad_token_ids))
    grids = {False: iter(image_grid_thw.tolist()), True: iter(video_grid_thw.tolist())}
    counts, masks = np.ones(len(input_ids), np.int64), list[RowMasks | None]()
    kept, start = [], 0
    for is_held, known in held:
        is_video = start < len(places) and bool(input_ids[places[start]] == card.video_token_id)
        grid = next(grids[is_video], None)
        if grid is None or start >= len(places):
            break  # too few pads, or of another kind: the sum below says so
        found = known if is_held else reader.next(is_video, grid)
        number, length = runs(grid, card)
        lengths = (
            np.full(number, length) if found is None else found.kept.reshape(number, -1).sum(axis=1)
        )  # pads of each run
        first = start + np.cumsum(lengths) - lengths
        if not is_whole and first[-1] < len(places):
            counts[places[first]] += length - lengths
        kept.append(np.ones(number * length, np.bool_) if found is None else found.kept.ravel())
        masks.append(found)
        start += number * length if is_whole else int(lengths.sum())
    if start != len(places) or len(masks) < len(held):
        raise InvalidInput(
            f"input_ids has {len(places)} pad tokens, {KEPT} and the grids ask for {start if len(masks) == len(held) else 'more'}",
            check="mask-pads",
        )
    whole = input_ids if is_whole else np.repeat(input_ids, counts)
    is_kept = np.ones(len(whole), np.bool_)
    is_kept[np.isin(whole, card.pad_token_ids)] = np.concatenate(kept)
    return Layout(whole[is_kept], whole, is_kept, tuple(masks))
