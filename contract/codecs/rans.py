"""Entropy coding: interleaved rANS over pairs of symbols, with fixed frequencies of 16 bits.

A state has 32 bits and gives out 16 at a time. Many states (lanes) run side by side, so that one numpy call moves all
of them: pair i of a level belongs to lane i modulo the number of lanes. The encoder walks backwards, the decoder
forwards. Pairs halve the number of steps; the 65,536 places of a level form one table that fits a cache. Rule and
proof: J. Duda, "Asymmetric numeral systems", arXiv 1311.2540; interleaving: F. Giesen, "Interleaved entropy coders",
arXiv 1402.3392.
"""

import numpy as np
from numpy.typing import NDArray

from contract.codecs.native import native
from contract.errors import InvalidInput

BITS = 16
TOTAL = 1 << BITS  # what the frequencies of a level sum up to
MAX_LANES = 4096
PAIRS_A_LANE = 256  # about so many: a lane costs 4 bytes

Words = NDArray[np.uint16]
Pairs = NDArray[np.uint8]


def num_lanes(num_pairs: int) -> int:
    """How many states run side by side: a power of two that both machines compute from the number of pairs."""
    wanted = num_pairs // PAIRS_A_LANE
    return min(MAX_LANES, 1 << max(0, wanted.bit_length() - 1))


def _starts(frequencies: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (np.cumsum(frequencies, axis=-1, dtype=np.uint32) - frequencies).astype(np.uint32)


def encode(pairs: Pairs, frequencies: NDArray[np.uint32], lanes: int | None = None) -> tuple[NDArray[np.uint32], Words]:
    """Code the levels of an item.

    Args:
        pairs: uint8 (levels, num_pairs).
        frequencies: uint32 (levels, 256), each at least 1, TOTAL a level.
        lanes: how many states run side by side, a power of two; None for num_lanes of all pairs.

    Returns:
        the states from which the decoder starts, uint32 (num_lanes,), and the words that it takes in, uint16 (words,).
    """
    lanes = num_lanes(pairs.size) if lanes is None else lanes
    if (compiled := native()) is not None:
        return compiled.encode(pairs, frequencies, lanes)
    states = np.full(lanes, TOTAL, np.uint32)
    words: list[Words] = []
    for level in range(len(pairs) - 1, -1, -1):
        packed_table = frequencies[level] | _starts(frequencies[level]) << BITS  # (256,): one look-up finds both
        found = packed_table.take(pairs[level])  # (num_pairs,)
        for first in range((pairs.shape[1] - 1) // lanes * lanes, -1, -lanes):
            packed = found[first : first + lanes]
            frequency = packed & (TOTAL - 1)
            x = states[: len(packed)]
            is_full = (x >> BITS) >= frequency
            words.append(x.astype(np.uint16).take(np.flatnonzero(is_full)))
            x >>= is_full.astype(np.uint32) << 4
            quotient = x // frequency
            np.subtract(TOTAL, frequency, out=frequency)
            quotient *= frequency
            x += quotient  # quotient * TOTAL + x % frequency
            x += packed >> BITS
    words.reverse()
    return states, np.concatenate(words) if words else np.zeros(0, np.uint16)


def decode(
    states: NDArray[np.uint32], words: Words, num_pairs: int, frequencies: NDArray[np.uint32]
) -> tuple[Pairs, int]:
    """The pairs, uint8 (levels, num_pairs), and the number of words that they took.

    Args:
        states: uint32 (num_lanes,), as encode returned them.
        words: uint16, the words of encode; more words may follow them.
        num_pairs: pairs of one level.
        frequencies: uint32 (levels, 256), those of the encoder.

    Raises:
        InvalidInput: there are fewer words than the pairs take, or the states do not end where every encoder starts.
    """
    if (compiled := native()) is not None:
        pairs, used, states = compiled.decode(states, words, num_pairs, frequencies)
        _check_end(states, used, words)
        return pairs, used
    levels, lanes, used = len(frequencies), len(states), 0
    pairs = np.empty((levels, num_pairs), np.uint8)
    states = states.copy()
    for level in range(levels):
        symbol_at = np.repeat(np.arange(256, dtype=np.uint8), frequencies[level])  # (TOTAL,)
        frequency, start = frequencies[level], _starts(frequencies[level])
        for first in range(0, num_pairs, lanes):
            found = pairs[level, first : first + lanes]
            x = states[: len(found)]
            slot = x & (TOTAL - 1)
            symbol_at.take(slot, out=found)
            x >>= BITS
            x *= frequency.take(found)
            x += slot
            x -= start.take(found)
            empty = np.flatnonzero(x < TOTAL)
            taken = words[used : used + len(empty)]
            if len(taken) < len(empty):
                _check_end(states, -1, words)
            x[empty] = (x[empty] << BITS) | taken
            used += len(empty)
    _check_end(states, used, words)
    return pairs, used


def _check_end(states: NDArray[np.uint32], used: int, words: Words) -> None:
    if used < 0:
        raise InvalidInput(
            f"vision_stream ends early: it has {len(words)} words, the grid asks for more: send it whole",
            check="stream",
        )
    if (states != TOTAL).any():
        raise InvalidInput(
            "vision_stream does not end as an encoder begins: it is damaged, send it again", check="stream"
        )
