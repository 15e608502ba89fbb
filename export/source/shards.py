"""Reads and writes safetensors files tensor by tensor, with the memory of one block.

The library maps a whole file, and the mapped pages count as memory of the process; its writer wants every tensor of a
file at once. The format is a length, a JSON header and the bytes, so plain reads and writes are enough here.
Format: https://github.com/huggingface/safetensors (README, "Format").
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError

BLOCK_BYTES = 16 << 20
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}


@dataclass(frozen=True)
class Stored:
    """One tensor where it lies: safetensors dtype, shape, file, and its first byte and number of bytes there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int

    def read(self) -> NDArray[np.uint8]:
        """All its bytes, little-endian, uint8 (num_bytes,)."""
        return np.fromfile(self.path, np.uint8, self.num_bytes, offset=self.offset)

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, one block of up to BLOCK_BYTES after another."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.num_bytes
            while left and (block := file.read(min(left, BLOCK_BYTES))):
                left -= len(block)
                yield block

    def float32(self) -> NDArray[np.float32]:
        """Its values in its shape, exact from bfloat16 and float16.

        Raises:
            BundleError: the tensor holds no floating point numbers.
        """
        raw = self.read()
        if self.dtype == "BF16":
            values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        elif self.dtype in ITEM_BYTES:
            values = raw.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[self.dtype]).astype(np.float32, copy=False)
        else:
            raise BundleError(f"tensor {self.name!r} is {self.dtype}, {', '.join(ITEM_BYTES)} can be exported")
        return values.reshape(self.shape)


def stored_bytes(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """The bytes uint8 (n,) of finite values in a safetensors dtype; each value rounds to the nearest, ties to even."""
    if dtype == "BF16":
        bits = values.reshape(-1).view(np.uint32)
        rounded = ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype("<u2")
    else:
        rounded = values.reshape(-1).astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])
    return rounded.view(np.uint8)


def read_shard(path: Path) -> tuple[dict[str, Stored], dict[str, str] | None]:
    """The tensors of a file by name, in stored order, and its free-form metadata. It reads the header only.

    Raises:
        BundleError: the file is missing, no safetensors file, or cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header: dict[str, Any] = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None)
        tensors, start, end = {}, 8 + length, 8 + length
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = entry["data_offsets"]
            shape, dtype = tuple(map(int, entry["shape"])), str(entry["dtype"])
            if start + first != end or last < first:
                raise ValueError(f"{name!r} does not begin where the tensor before it ends")
            if dtype in ITEM_BYTES and last - first != ITEM_BYTES[dtype] * math.prod(shape):
                raise ValueError(f"{name!r} of {dtype} {list(shape)} has {last - first} bytes")
            tensors[name] = Stored(name, dtype, shape, path, end, last - first)
            end = start + last
        if end != size:
            raise ValueError(f"it has {size} bytes, its header asks for {end}")
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing: the checkpoint needs it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is no safetensors file, or cut short: {error}") from error
    return tensors, metadata


def write_shard(path: Path, tensors: Iterable[Stored], metadata: dict[str, str] | None) -> int:
    """Write one safetensors file with the tensors in this order; returns how many bytes the tensors have.

    Raises:
        OSError: the disk is full, or the process cannot read a source.
    """
    tensors, offset = list(tensors), 0
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    for tensor in tensors:
        end = offset + tensor.num_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.writelines(tensor.blocks())
    return offset
