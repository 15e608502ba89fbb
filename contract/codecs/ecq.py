"""Entropy-coded steps (`ecq`): a step is half the row's rms, common values take few bits, rare ones more.

Each item has one stream, so that each has a key of its own. A stream holds a CRC-32, the states and words of
contract.codecs.rans, and the values outside -7 to 7 as int16. The grid fixes the number of values, so no stream decodes
to more than its item.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs import rans
from contract.codecs.channels import Levels, divide, flattened, restored, row_steps
from contract.codecs.native import native
from contract.codecs.nibbles import HALVES, HAS_OUTSIDE, HIGHEST, OUTSIDE, pack, unpack
from contract.codecs.numbers import CodecNumbers
from contract.errors import InvalidInput

CHECKSUM = 4  # bytes
INT16 = np.iinfo(np.int16)


def encode(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """vision_stream uint8 (bytes,) of one item, and its vision_scales float16 (1+L, n)."""
    levels = flattened(main, deepstack, numbers)
    steps = row_steps(levels, numbers.ecq_steps)
    pairs, outside = _rounded(levels, steps)
    states, words = rans.encode(pairs, numbers.ecq_frequencies)
    body = states.astype("<u4").tobytes() + words.astype("<u2").tobytes() + outside.astype("<i2").tobytes()
    checksum = zlib.crc32(body).to_bytes(CHECKSUM, "little")
    return np.frombuffer(checksum + body, np.uint8), steps


def decode(stream: NDArray[np.uint8], steps: NDArray[np.float16], numbers: CodecNumbers) -> tuple[Levels, Levels]:
    """Main (n, H) and deepstack (L, n, H), float32; n is the number of steps a level.

    Raises:
        InvalidInput: the stream has fewer or more bytes than its values take, or it is damaged.
    """
    num_levels, num_rows = steps.shape
    num_pairs = num_rows * numbers.channel_scales.shape[1] // 2
    head = CHECKSUM + 4 * rans.num_lanes(num_levels * num_pairs)
    data = np.ascontiguousarray(stream).tobytes()
    if len(data) < head or len(data) % 2:
        raise InvalidInput(
            f"vision_stream has {len(data)} bytes for an item, an even number from {head} on is expected",
            check="stream",
        )
    if zlib.crc32(data[CHECKSUM:]) != int.from_bytes(data[:CHECKSUM], "little"):
        raise InvalidInput(
            f"vision_stream has {len(data)} bytes for an item that do not fit their checksum: send it again",
            check="stream",
        )
    states = np.frombuffer(data[CHECKSUM:head], "<u4").astype(np.uint32)
    words = np.frombuffer(data[head:], "<u2").astype(np.uint16, copy=False)
    pairs, num_words = rans.decode(states, words, num_pairs, numbers.ecq_frequencies)
    outside = words[num_words:].view(np.int16)
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
    if len(places) != len(outside):
        raise InvalidInput(
            f"vision_stream has {len(outside)} values outside its table, {len(places)} are expected", check="stream"
        )
    if (np.abs(outside.astype(np.int32)) <= HIGHEST).any():
        raise InvalidInput(
            f"vision_stream has values of at most {HIGHEST} outside its table, larger ones are expected: write small "
            "values through the table",
            check="stream",
        )
    levels.reshape(-1)[places] = outside
