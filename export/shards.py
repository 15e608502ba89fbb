"""Writing safetensors files tensor by tensor, from tensors that lie in other files.

The library's own writer wants every tensor of a file in memory at once; the format is a length, a JSON header and the
bytes, so a shard of any size is copied with the memory of one tensor.
Format: https://github.com/huggingface/safetensors (README, "Format").
"""

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stored:
    """One tensor to copy: its name, safetensors dtype, shape, size in bytes, and a reader of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    read: Callable[[], memoryview]


def write_shard(path: Path, tensors: Iterable[Stored], metadata: dict[str, str] | None) -> int:
    """Write one safetensors file; returns the bytes of its tensors."""
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
            file.write(tensor.read())
    return offset
