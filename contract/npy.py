"""An array of a .npy file, read strictly: numpy's own reader raises what it likes on damage, and takes memory on trust.

Source of the layout: numpy.lib.format, versions 1 to 3. This module reads little-endian arrays in C order only.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, shown

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
_HEADER = re.compile(
    rb"\{'descr': '([<|][fiuU]\d{1,9})', 'fortran_order': False, 'shape': \(((?:\d{1,18},? ?){0,8})\), \} *\n?"
)


def read_array(data: bytes, place: str) -> NDArray[Any]:
    """The array in the bytes of a file; both share their memory.

    Args:
        place: names the file in messages.

    Raises:
        BundleError: the bytes are no array in C order, or more or fewer than its shape asks for.
    """
    size = 2 if data[6:7] == b"\x01" else 4
    start = 8 + size
    length = int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start : start + length]) if length <= MAX_HEADER_BYTES else None
    if not data.startswith(MAGIC) or header is None:
        raise BundleError(f"{place} begins with {shown(data[:16])}, an array of numpy is expected: copy it again")
    try:
        dtype = np.dtype(header[1].decode())
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"{place} has the type {header[1].decode()}, which is none of numpy's: copy it again"
        ) from error
    shape = tuple(map(int, re.findall(rb"\d+", header[2])))
    body = len(data) - start - length
    if dtype.itemsize * math.prod(shape) != body:
        raise BundleError(f"{place} has {body} bytes, {header[1].decode()} {list(shape)} has others: copy it again")
    found: NDArray[Any] = np.frombuffer(data, dtype, offset=start + length) if body else np.zeros(shape, dtype)
    return found.reshape(shape)
