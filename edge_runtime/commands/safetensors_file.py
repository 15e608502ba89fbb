"""This module writes arrays to a .safetensors file without the library: a length, a JSON header and the bytes.

The format section of huggingface/safetensors' README describes the layout.
"""

import json
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}


def write_safetensors(file: BinaryIO, arrays: dict[str, NDArray[Any]], facts: dict[str, str] | None = None) -> None:
    """Write float32, float16 and int64 arrays, little-endian and row-major; facts are the format's `__metadata__`."""
    header: dict[str, Any] = {"__metadata__": facts} if facts else {}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
