"""Entropy-coded steps (`ecq`): a step is half the row's rms, common values take few bits, rare ones more.

Each item has one stream (contract.codecs.stream), so that each has a key of its own. Its table holds pairs of values
from -7 to 7.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import rans
from contract.codecs.channels import Levels, divide, flattened, restored, row_steps
from contract.codecs.native import native
from contract.codecs.nibbles import HALVES, HAS_OUTSIDE, HIGHEST, OUTSIDE, pack, unpack
from contract.codecs.numbers import CodecNumbers
from contract.codecs.stream import INT16, check_outside, seal, unseal


def encode(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """vision_stream uint8 (bytes,) of one item, and its vision_scales float16 (1+L, n)."""
    levels = flattened(main, deepstack, numbers)
    steps = row_steps(levels, numbers.ecq_steps)
    pairs, outside = _rounded(levels, steps)
    states, words = rans.encode(pairs, numbers.ecq_frequencies)
    return seal(states, words, outside), steps


def decode(stream: NDArray[np.uint8], steps: NDArray[np.float16], numbers: CodecNumbers) -> tuple[Levels, Levels]:
    """Main (n, H) and deepstack (L, n, H), float32; n is the number of steps a level.

    Raises:
        InvalidInput: the stream has fewer or more bytes than its values take, or it is damaged.
    """
    num_levels, num_rows = steps.shape
    num_pairs = num_rows * numbers.channel_scales.shape[1] // 2
    lanes = rans.num_lanes(num_levels * num_pairs)
    pairs, outside = unseal(stream, lanes, num_pairs, numbers.ecq_frequencies)
    levels = unpack(pairs)  # (1+L, n*H)
    _fill(levels, pairs, outside)
    levels = levels.reshape(num_levels, num_rows, -1)
    levels *= steps.astype(np.float32)[..., None]
    return restored(levels, numbers)


def _rounded(levels: Levels, steps: NDArray[np.float16]) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Levels in steps: pairs (1+L, n * H/2) and those outside the table in their order; it may overwrite `levels`."""
    if (compiled := native()) is not None:
        return compiled.rounded(levels, np.float32(1) / steps.astype(np.float32))
    whole = divide(levels, steps)
    symbols = np.clip(whole, OUTSIDE, -OUTSIDE).astype(np.int8)  # 8 and -8 share their four bits
    pairs = pack(symbols).reshape(len(levels), -1)
    return pairs, np.clip(whole.reshape(-1)[_places(pairs)], INT16.min, INT16.max).astype(np.int16)


def _places(pairs: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The places, among all values, of those outside the table."""
    where = np.flatnonzero(HAS_OUTSIDE.take(pairs))  # pairs that have one, or two
    is_outside = HALVES[pairs.reshape(-1)[where]] == OUTSIDE  # (pairs, 2)
    found: NDArray[np.intp] = (2 * where[:, None] + np.arange(2))[is_outside]
    return found


def _fill(levels: Levels, pairs: NDArray[np.uint8], outside: NDArray[np.int16]) -> None:
    """Put the values outside the table at their places."""
    places = _places(pairs)
    check_outside(outside, len(places), HIGHEST)
    levels.reshape(-1)[places] = outside
