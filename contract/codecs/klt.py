"""A learned transform with entropy-coded coefficients (`klt`): few coefficients say what the language model listens to.

A row's main part and levels go through one transform, the coefficients are rounded to whole steps with a small dead
zone, and each has a table of its own. Each item has one stream (contract.codecs.stream) and no scales. The transform is
that of one checkpoint (export.upload.learn); nobody publishes it unless its gate has passed there.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import rans
from contract.codecs.numbers import CodecNumbers
from contract.codecs.stream import INT16, check_outside, seal, unseal

DEAD = 0.1  # of a step, on each side of zero
HIGHEST, OUTSIDE = 127, -128  # in the table; and the symbol of a value outside it
SYMBOLS_A_LANE = 1024  # about so many: a lane costs 4 bytes, and a symbol often less than a bit


def flat(main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Main (n, H) and deepstack (L, n, H) as rows float32 (n, (1+L)*H), main first."""
    rows = np.empty((len(main), 1 + len(deepstack), main.shape[1]), np.float32)
    rows[:, 0] = main
    rows[:, 1:] = deepstack.transpose(1, 0, 2)
    return rows.reshape(len(main), -1)


def rounded(coefficients: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Whole steps of the same type and shape."""
    found: NDArray[np.floating[Any]] = np.trunc(
        coefficients + np.copysign(0.5 - DEAD, coefficients).astype(coefficients.dtype)
    )
    return found


def encode(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """vision_stream uint8 (bytes,) of one item, and scales float16 (0, n), which do not travel.

    Raises:
        ValueError: the numbers have no transform.
    """
    transform = numbers.needed_transform
    centred = flat(main, deepstack) - transform.klt_mean
    whole = rounded(centred @ transform.klt_analysis.astype(np.float32)).T  # (K, n)
    is_outside = np.abs(whole) > HIGHEST
    symbols = np.where(is_outside, OUTSIDE, whole).astype(np.int8)
    outside = np.clip(whole[is_outside], INT16.min, INT16.max).astype(np.int16)
    lanes = _num_lanes(*symbols.shape)
    states, words = rans.encode(np.ascontiguousarray(symbols).view(np.uint8), transform.klt_frequencies, lanes)
    return seal(states, words, outside), np.zeros((0, len(main)), np.float16)


def decode(
    stream: NDArray[np.uint8], scales: NDArray[np.float16], numbers: CodecNumbers
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Main (n, H) and deepstack (L, n, H), float32; scales (0, n) says n.

    Raises:
        InvalidInput: the stream has fewer or more bytes than its values take, or it is damaged.
        ValueError: the numbers have no transform.
    """
    transform, num_rows = numbers.needed_transform, scales.shape[1]
    number = len(transform.klt_synthesis)
    symbols, outside = unseal(stream, _num_lanes(number, num_rows), num_rows, transform.klt_frequencies)
    values = symbols.view(np.int8)
    is_outside = values == OUTSIDE
    check_outside(outside, int(is_outside.sum()), HIGHEST)
    whole = values.astype(np.float32)
    whole[is_outside] = outside
    rows = whole.T @ transform.klt_synthesis.astype(np.float32) + transform.klt_mean  # (n, (1+L)*H)
    levels = rows.reshape(num_rows, *numbers.channel_scales.shape).transpose(1, 0, 2)
    return levels[0], levels[1:]


def _num_lanes(num_coefficients: int, num_rows: int) -> int:
    """How many states run side by side: a power of two, no more than a coefficient has symbols."""
    wanted = min(num_rows, num_coefficients * num_rows // SYMBOLS_A_LANE, rans.MAX_LANES)
    return 1 << max(0, wanted.bit_length() - 1)
