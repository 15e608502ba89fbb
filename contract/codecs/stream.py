"""A stream of an item: a checksum, the states and words of contract.codecs.rans, and the values outside the table.

The grid fixes how many symbols a stream holds, so no stream decodes to more than its item.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from contract.codecs import rans
from contract.errors import InvalidInput

CHECKSUM = 4  # bytes
INT16 = np.iinfo(np.int16)


def seal(states: NDArray[np.uint32], words: NDArray[np.uint16], outside: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The stream, uint8 (bytes,): CRC-32, states, words, and the values outside the table in their order."""
    body = states.astype("<u4").tobytes() + words.astype("<u2").tobytes() + outside.astype("<i2").tobytes()
    checksum = zlib.crc32(body).to_bytes(CHECKSUM, "little")
    return np.frombuffer(checksum + body, np.uint8)


def unseal(
    stream: NDArray[np.uint8], num_lanes: int, num_symbols: int, frequencies: NDArray[np.uint32]
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Symbols uint8 (levels, num_symbols) and the values outside the table, int16 (values,), in their order.

    Args:
        num_lanes: states of the stream.
        num_symbols: symbols of one level.
        frequencies: uint32 (levels, 256), those of the encoder.

    Raises:
        InvalidInput: the stream has fewer bytes than its symbols take, or it is damaged.
    """
    head = CHECKSUM + 4 * num_lanes
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
    symbols, num_words = rans.decode(states, words, num_symbols, frequencies)
    return symbols, words[num_words:].view(np.int16)


def check_outside(outside: NDArray[np.int16], num_places: int, highest: int) -> None:
    """Check the values outside the table against the symbols that announce them.

    Args:
        num_places: symbols that stand for a value outside the table.
        highest: the largest magnitude inside it.

    Raises:
        InvalidInput: there are more or fewer values, or one belongs into the table.
    """
    if num_places != len(outside):
        raise InvalidInput(
            f"vision_stream has {len(outside)} values outside its table, {num_places} are expected", check="stream"
        )
    if (np.abs(outside.astype(np.int32)) <= highest).any():
        raise InvalidInput(
            f"vision_stream has values of at most {highest} outside its table, larger ones are expected: write small "
            "values through the table",
            check="stream",
        )
