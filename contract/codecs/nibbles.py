"""Two small whole numbers in a byte, low half first, in two's complement: -7 to 7, and -8 for a value outside them."""

import numpy as np
from numpy.typing import NDArray

HIGHEST = 7
OUTSIDE = -8


def _halves() -> NDArray[np.int8]:
    codes = np.arange(256, dtype=np.uint8)
    low, high = (codes & 15).astype(np.int8), (codes >> 4).astype(np.int8)
    halves = np.stack([low, high], axis=1)  # (256, 2)
    return np.where(halves > HIGHEST, halves - 16, halves).astype(np.int8)


HALVES = _halves()  # int8 (256, 2): the two numbers of every byte
HAS_OUTSIDE = (HALVES == OUTSIDE).any(axis=1)  # bool (256,)
_FLOATS = HALVES.astype(np.float32).view(np.complex64).ravel()  # one look-up finds two floats


def pack(numbers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Numbers from -8 to 7, int8 (..., H), as bytes uint8 (..., H/2)."""
    halves = numbers.view(np.uint8)
    packed: NDArray[np.uint8] = halves[..., 1::2] << np.uint8(4)
    packed |= halves[..., ::2] & 15
    return packed


def unpack(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes (..., H/2) as numbers, float32 (..., H)."""
    return _FLOATS.take(codes).view(np.float32)
