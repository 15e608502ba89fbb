"""The slow steps of `ecq` in compiled code, where a machine has the library of kernels/; numpy computes the same bytes.

`load` tells this module where the library lies. On the device, the code that loads a bundle's tower calls it.
"""

import ctypes
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PLACES = 1 << 16  # as many as rans.TOTAL

_loaded: list["Native"] = []


class Native:
    """The functions of kernels/rans.cc.

    Raises:
        OSError: the file is no library of this machine.
        AttributeError: the library is older than the codec.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._round, self._encode, self._decode = (
            getattr(library, name) for name in ("EdgeVlmEcqRound", "EdgeVlmRansEncode", "EdgeVlmRansDecode")
        )
        self._round.argtypes, self._round.restype = [pointer, pointer, size, size, pointer, pointer], size
        self._encode.argtypes = [pointer, size, size, pointer, size, pointer, pointer]
        self._encode.restype = size
        self._decode.argtypes = [pointer, size, pointer, size, pointer, pointer, size, size, pointer]
        self._decode.restype = ctypes.c_int64

    def rounded(
        self, levels: NDArray[np.float32], inverse_steps: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        """Levels (1+L, n, H) as pairs (1+L, n * H/2), and the values outside the table in their order."""
        num_levels, num_rows, width = levels.shape
        levels, inverse_steps = np.ascontiguousarray(levels), np.ascontiguousarray(inverse_steps, np.float32)
        pairs = np.empty((num_levels, num_rows * width // 2), np.uint8)
        outside = np.empty(levels.size + 1, np.int16)
        count = self._round(
            levels.ctypes.data,
            inverse_steps.ctypes.data,
            num_levels * num_rows,
            width,
            pairs.ctypes.data,
            outside.ctypes.data,
        )
        return pairs, outside[:count].copy()

    def encode(
        self, pairs: NDArray[np.uint8], frequencies: NDArray[np.uint32], num_lanes: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
        """States uint32 (num_lanes,) and words uint16 (words,) of pairs uint8 (levels, num_pairs)."""
        pairs, table = np.ascontiguousarray(pairs), np.ascontiguousarray(frequencies, np.uint32)
        states, words = np.empty(num_lanes, np.uint32), np.empty(pairs.size + 1, np.uint16)
        count = self._encode(
            pairs.ctypes.data, *pairs.shape, table.ctypes.data, num_lanes, states.ctypes.data, words[1:].ctypes.data
        )
        return states, words[words.size - count :].copy()

    def decode(
        self, states: NDArray[np.uint32], words: NDArray[np.uint16], num_pairs: int, frequencies: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint8], int, NDArray[np.uint32]]:
        """Pairs uint8 (levels, num_pairs), how many words they took (-1: there are too few), the states at the end."""
        states, words = states.copy(), np.ascontiguousarray(words)
        table = np.ascontiguousarray(frequencies, np.uint32)
        pairs, places = np.zeros((len(table), num_pairs), np.uint8), np.empty(PLACES, np.uint8)
        used = self._decode(
            states.ctypes.data,
            len(states),
            words.ctypes.data,
            len(words),
            table.ctypes.data,
            places.ctypes.data,
            len(table),
            num_pairs,
            pairs.ctypes.data,
        )
        return pairs, used, states


def load(path: Path | None) -> None:
    """Use the library at path from now on; None, or one that lacks the functions, leaves the work to numpy."""
    found: list[Native] = []
    if path is not None:
        with suppress(OSError, AttributeError):
            found.append(Native(path))
    _loaded[:] = found  # at once: another thread may encode


def native() -> Native | None:
    """The functions that `load` found; None where numpy does the work."""
    return next(iter(_loaded), None)
