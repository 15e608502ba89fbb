"""System shared memory, through which a client hands embeddings to a server on the same machine, instead of a socket.

One region serves one request at a time; a larger one replaces it where a request needs more, and the client registers
each region once. A region's name is random and Triton must open it, so a server on another machine fails to, and the
client notices.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from contract.errors import EdgeVlmError, InvalidInput

SMALLEST_BYTES = 1 << 20
ALIGNMENT = 64
UNREGISTER_TRIES, UNREGISTER_PAUSE_S = 20, 0.05


class Region:
    """Shared memory under a random name.

    Attributes:
        name: the name; key: the same as POSIX spells it.
        num_bytes: its size, a power of two from 1 MiB.
        is_registered: whether the server knows it.

    Raises:
        InvalidInput: the system gives no shared memory of this size.
    """

    def __init__(self, num_bytes: int) -> None:
        self.name = f"edge_vlm_client_{os.getpid()}_{uuid4().hex}"
        self.num_bytes = max(SMALLEST_BYTES, 1 << (num_bytes - 1).bit_length())
        try:
            self._memory: SharedMemory | None = SharedMemory(self.name, create=True, size=self.num_bytes)
        except OSError as error:
            raise InvalidInput(
                f"the system gives no {self.num_bytes} bytes of shared memory: {error.strerror}; enlarge /dev/shm or leave "
                "shared_memory out"
            ) from error
        self.is_registered = False

    @property
    def key(self) -> str:
        """The name as POSIX spells it."""
        return f"/{self.name}"

    def write(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Copy tensors in, one behind the other; returns their offsets in bytes."""
        assert self._memory is not None  # for mypy: nobody unlinks a region in use
        offsets, start = {}, 0
        for name, array in tensors.items():
            np.ndarray(array.shape, array.dtype, self._memory.buf, start)[...] = array
            offsets[name] = start
            start += padded(array.nbytes)
        return offsets

    def unlink(self) -> None:
        """Give the memory back; a second call does nothing."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
            with suppress(FileNotFoundError):
                memory.unlink()


def padded(num_bytes: int) -> int:
    """The bytes that a tensor takes in a region, so that the next tensor starts at a multiple of ALIGNMENT."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


class SharedRegions:
    """The regions of a client, one for each of its requests under way."""

    def __init__(self) -> None:
        self._free: list[Region] = []
        self._is_closed = False
        self._lock = Lock()

    def take(self) -> Region | None:
        """A free region of any size; None where there is none."""
        with self._lock:
            return self._free.pop() if self._free else None

    def give(self, region: Region) -> bool:
        """Take a region back when its request is over; returns False where somebody closed the client meanwhile."""
        with self._lock:
            if not self._is_closed:
                self._free.append(region)
            return not self._is_closed

    def close(self) -> list[Region]:
        """All regions that no request uses; the caller now owns them."""
        with self._lock:
            self._is_closed, free, self._free = True, self._free, []
        return free


def retire(region: Region, unregister: Callable[[str], None]) -> None:
    """Unregister a region where the server knows it, and unlink it whatever happens.

    Right after a response Triton may still say that a region is in use, so this call asks again for up to a second.
    """
    try:
        for _ in range(UNREGISTER_TRIES if region.is_registered else 0):
            try:
                return unregister(region.name)
            except EdgeVlmError as error:
                if "in use" not in str(error):
                    return None  # the server is away, and the registration with it
            time.sleep(UNREGISTER_PAUSE_S)
    finally:
        region.unlink()
