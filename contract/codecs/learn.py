"""Learn a codec's numbers from rows: the sizes of channels, the steps of least error, how often pairs occur."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import nibbles
from contract.codecs.numbers import CodecNumbers
from contract.codecs.rans import TOTAL

ECQ_STEP = 0.5  # times the rms: a divergence of 1.6e-4 on the bundled model for 3.0 bits a value
INT4_STEPS = np.linspace(0.2, 0.6, 41)  # candidates; 0.335 is the best one for a normal distribution
SMOOTHING = 0.02  # share of the product of the single symbols' frequencies: for pairs that calibration never met
RARE = 1e-5  # share of an even distribution: no pair has frequency 0
LOUD = 3  # times the median channel
OCTAVE = 8  # a channel's size rounds to an eighth of an octave, so that other processors find the same

Rows = NDArray[np.floating[Any]]  # (1+L, n, H)


def learn(levels: Rows, about: dict[str, Any] | None = None) -> CodecNumbers:
    """Learn the numbers of all codecs from the rows of calibration pictures.

    Args:
        levels: float (1+L, n, H), main first; a hundred rows or more.
        about: what the caller wants to say of the rows, as JSON values; CodecNumbers.about keeps it.
    """
    rows = levels.astype(np.float64)
    scales = _channel_scales(rows)
    flat = rows / scales[:, None]
    rms = np.sqrt((flat**2).mean(axis=-1, keepdims=True))
    unit = np.divide(flat, rms, out=np.zeros_like(flat), where=rms > 0)  # every row of rms 1
    int4_steps = np.array([_least_error(level) for level in unit], np.float32)
    ecq_steps = np.full(len(rows), ECQ_STEP, np.float32)
    frequencies = np.stack([_frequencies(level / ECQ_STEP) for level in unit])
    return CodecNumbers(scales, int4_steps, ecq_steps, frequencies, about or {})


def _channel_scales(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """The number that divides each channel, float32 (1+L, H). All quiet channels of a level share one number: one for
    each triples the divergence on the bundled model, because a channel's size differs between pictures."""
    rms = np.sqrt((rows**2).mean(axis=1))  # (1+L, H)
    typical = np.median(rms, axis=1, keepdims=True)
    rms = np.maximum(np.where(rms > LOUD * typical, rms, typical), 1e-6)
    scales: NDArray[np.float32] = np.exp2(np.rint(np.log2(rms) * OCTAVE) / OCTAVE).astype(np.float32)
    return scales


def _least_error(unit: NDArray[np.float64]) -> float:
    """The step, in units of the rms, with which four bits lose least of these rows."""

    def error(step: float) -> float:
        whole = np.clip(np.rint(unit / step), -nibbles.HIGHEST, nibbles.HIGHEST)
        return float(((whole * step - unit) ** 2).sum())

    return float(min(INT4_STEPS, key=error))


def _frequencies(steps: NDArray[np.float64]) -> NDArray[np.uint32]:
    symbols = np.clip(np.rint(steps), nibbles.OUTSIDE, -nibbles.OUTSIDE).astype(np.int8)
    pairs = np.bincount(nibbles.pack(symbols).ravel(), minlength=256).astype(np.float64)
    single = np.bincount((symbols & 15).ravel().view(np.uint8), minlength=16) + 0.5
    single = single / single.sum()
    product = np.outer(single, single).ravel()  # high half first, as bincount counts bytes
    share = (1 - SMOOTHING - RARE) * pairs / pairs.sum() + SMOOTHING * product + RARE / 256
    return whole_shares(share)


def whole_shares(shares: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint32]:
    """Shares as whole numbers from 1 on that sum to TOTAL; the commonest pairs take what rounding leaves."""
    counts = np.maximum(1, np.floor(np.asarray(shares) * TOTAL)).astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    while missing := TOTAL - int(counts.sum()):
        change = 1 if missing > 0 else -1
        some = order[counts[order] > 1][: abs(missing)] if change < 0 else order[: abs(missing)]
        counts[some] += change
    whole: NDArray[np.uint32] = counts.astype(np.uint32)
    return whole
