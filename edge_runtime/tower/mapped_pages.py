"""This module gives the pages of a mapped file back to the system while onnxruntime reads the file from end to end.

onnxruntime maps the weights and copies them into the order that suits its kernels, and keeps the mapping of a loop's
weights until the session ends: a device would hold both, which is twice a tower in float32. onnxruntime does not read
again what it has copied, so those pages may leave at once; the system reads a page from the file again if somebody
needs it after all. This works on Linux; elsewhere nothing happens. The page
https://docs.kernel.org/admin-guide/mm/pagemap.html tells what the bits of a page mean.
"""

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGEMAP = Path("/proc/self/pagemap")
DONTNEED = 4  # madvise's MADV_DONTNEED on Linux
INTERVAL_S = 0.05
SMALL = 1 << 16  # bytes of a mapping that is not worth a look: a tower has hundreds, of scales and biases
OF_FILE, IS_SWAPPED, IS_PRESENT = (np.uint64(1 << bit) for bit in (61, 62, 63))

Place = tuple[int, int]  # first address and one past the last


@contextmanager
def given_back(path: Path) -> Iterator[None]:
    """Inside the block, a thread drops the pages of every mapping of `path` that nobody has written to."""
    if sys.platform != "linux":
        yield
        return
    ended, name = threading.Event(), str(path.resolve())

    def drop() -> None:
        with suppress(OSError), PAGEMAP.open("rb", buffering=0) as pagemap:  # a system may hide /proc
            is_last = False
            while not is_last:
                is_last = ended.wait(INTERVAL_S)  # one more turn at the end: onnxruntime may keep mappings
                for place in mappings(name):
                    if place[1] - place[0] < SMALL:
                        continue
                    states = states_of(place, pagemap.fileno())
                    if (states & IS_PRESENT).any() and not is_written(states):
                        _madvise(place, DONTNEED)

    thread = threading.Thread(target=drop, name="given_back", daemon=True)
    try:
        thread.start()  # a signal may interrupt this once the thread runs
        yield
    finally:
        ended.set()
        with suppress(RuntimeError):  # the thread did not start
            thread.join()


def mappings(name: str) -> list[Place]:
    """The addresses at which this process has mapped the file `name`."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, file = line.split(maxsplit=5)
        if file == name:
            start, end = (int(address, 16) for address in place.split("-"))
            found.append((start, end))
    return found


def states_of(place: Place, pagemap: int) -> NDArray[np.uint64]:
    """What the system says of each page between two addresses, uint64 (pages,).

    Args:
        pagemap: the open PAGEMAP.
    """
    first, last = (address // mmap.PAGESIZE for address in place)
    return np.frombuffer(os.pread(pagemap, 8 * (last - first), 8 * first), np.uint64)


def is_written(states: NDArray[np.uint64]) -> bool:
    """Whether the process has written to a page of a private mapping; a drop would lose that page."""
    return bool(((states & (IS_PRESENT | IS_SWAPPED)) != 0)[(states & OF_FILE) == 0].any())


def _madvise(place: Place, advice: int) -> None:
    """Call madvise and ignore its result: a refused call costs memory and nothing else."""
    start, end = place
    _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
