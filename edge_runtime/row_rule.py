"""Which rows of a video travel: the device's side of contract.rows.

The rule copies a row that hardly differs from the last one sent at its place: the server repeats that one, and the
prompt keeps its pad. A dropped row is in no prompt. Both rules compare whole rows, main and levels side by side,
because the language model reads all of them. The copy rule compares with the last row sent, and not with the row
before, so that slow changes do not add up.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput
from contract.rows import RowMasks

COPY_BELOW = 0.05  # 1 - cosine; it changed no answer of the bundled model (docs/upload.md)
FORMS = "all, equal, copy, copy:0.05 (up to 1) or drop:0.5 (below 1)"

Rows = NDArray[np.floating]


@dataclass(frozen=True)
class RowRule:
    """The rule that chooses a video's rows. Pictures always travel whole.

    Attributes:
        copy_below: the rule copies a row where 1 - cosine to the last one sent at its place is below this, or where
            both are equal; None copies none.
        drop_share: the share of a video's rows that the rule drops, from 0 to below 1: those that differ least from the
            frame before.
    """

    copy_below: float | None = COPY_BELOW
    drop_share: float = 0.0

    @classmethod
    def of(cls, text: str) -> "RowRule":
        """The rule with a name, which is one of FORMS.

        Raises:
            InvalidInput: the name is none of them, or its number is out of range.
        """
        name, colon, number = text.partition(":")
        try:
            value = float(number) if colon else math.nan
        except ValueError:
            value = math.inf
        if not colon and name in ("all", "equal", "copy"):
            return cls({"all": None, "equal": 0.0, "copy": COPY_BELOW}[name])
        if name == "copy" and 0 < value <= 1:
            return cls(value)
        if name == "drop" and 0 < value < 1:
            return cls(None, value)
        raise InvalidInput(f"rows is {text!r}, {FORMS} is expected")

    @property
    def exact(self) -> "RowRule":
        """The rule for rows in fp32: where this rule copies, that one copies only equal rows; others stay the same."""
        return self if self.copy_below is None else RowRule(0.0)

    def masks(self, main: Rows, deepstack: Rows, num_frames: int) -> RowMasks | None:
        """The masks of a video; None where all of its rows travel.

        Args:
            main, deepstack: (n, H) and (L, n, H); the rows of a frame stand side by side.
            num_frames: how many temporal patches the rows belong to; below 2 all rows travel.
        """
        if num_frames < 2 or (self.copy_below is None and not self.drop_share):
            return None
        frames = np.concatenate([main[None], deepstack]).reshape(1 + len(deepstack), num_frames, -1, main.shape[1])
        whole = np.ones(frames.shape[1:3], np.bool_)  # (frames, rows of a frame)
        if self.drop_share:
            kept = _kept(frames, self.drop_share)
            return None if kept.all() else RowMasks(kept, ~whole)
        copied = _copied(frames, self.copy_below or 0.0)
        return RowMasks(whole, copied) if copied.any() else None


ALL, COPIES = RowRule(None), RowRule()


def _distance(a: Rows, b: Rows) -> NDArray[np.float64]:
    """1 - cosine of the rows (1+L, n, H) of two frames, (n,); 0 where they are equal, 1 for a row of zeros."""
    product, one, two = (np.einsum("lnh,lnh->n", x, y, dtype=np.float64) for x, y in ((a, b), (a, a), (b, b)))
    size = np.sqrt(one * two)
    cosine = np.divide(product, size, out=np.zeros_like(size), where=size > 0)
    found: NDArray[np.float64] = np.where((a == b).all(axis=(0, 2)), 0.0, np.maximum(1 - cosine, 1e-12))
    return found


def _copied(frames: Rows, below: float) -> NDArray[np.bool_]:
    """Which rows the rule copies, bool (frames, rows of a frame), out of rows (1+L, frames, rows of a frame, H)."""
    copied = np.zeros(frames.shape[1:3], np.bool_)
    sent = frames[:, 0].copy()
    for frame in range(1, len(copied)):
        distance = _distance(frames[:, frame], sent)
        copied[frame] = (distance < below) | (distance == 0)
        np.copyto(sent, frames[:, frame], where=~copied[frame][:, None])
    return copied


def _kept(frames: Rows, drop_share: float) -> NDArray[np.bool_]:
    """Which rows stay, bool (frames, rows of a frame): all of the first frame, and those of the others that differ most
    from the frame before. The number is that of EVS (arXiv 2510.14624) as vLLM counts it; each frame keeps a row, which
    marks its place."""
    shape = frames.shape[1:3]
    distance = np.full(shape, np.inf)
    for frame in range(1, shape[0]):
        distance[frame] = _distance(frames[:, frame], frames[:, frame - 1])
    number = max(shape[1], int(distance.size * (1 - drop_share)))
    is_kept = np.zeros(distance.size, np.bool_)
    is_kept[np.argsort(-distance.ravel(), kind="stable")[:number]] = True
    kept = is_kept.reshape(shape)
    np.put_along_axis(kept, distance.argmax(axis=1)[:, None], True, axis=1)
    return kept
