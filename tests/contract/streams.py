"""Damaged streams: cut, grown, with bits turned and bytes moved; with the checksum as it was, or made right again."""

import zlib
from random import Random

import numpy as np
from numpy.typing import NDArray

CHECKSUM = 4


def sealed(body: bytes) -> NDArray[np.uint8]:
    """A stream whose checksum is right."""
    return np.frombuffer(zlib.crc32(body).to_bytes(CHECKSUM, "little") + body, np.uint8)


def damaged(stream: bytes, random: Random) -> bytes:
    """The stream with one to four damages, never as it was."""
    while True:
        data = bytearray(stream)
        for _ in range(random.randint(1, 4)):
            kind, place = random.randrange(6), random.randrange(len(data)) if data else 0
            if kind == 0 and data:
                data[place] ^= 1 << random.randrange(8)
            elif kind == 1:
                del data[place:]
            elif kind == 2:
                data[place:place] = random.randbytes(random.randint(1, 40))
            elif kind == 3:
                data[place : place + random.randint(1, 40)] = random.randbytes(random.randint(1, 40))
            elif kind == 4:
                data += random.randbytes(random.randint(1, 9))
            elif len(data) > 2:
                other = random.randrange(len(data) - 1)
                data[place : place + 2], data[other : other + 2] = data[other : other + 2], data[place : place + 2]
        if bytes(data) != stream:
            return bytes(data)
