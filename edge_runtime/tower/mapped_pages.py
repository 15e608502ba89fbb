"""Pages of a mapped file, given back to the system while another thread reads the file from one end to the other.

onnxruntime maps the weights and copies them into the order its kernels like, and does not let go of the mapping of a
loop's weights before the session ends: a device would hold both, which is twice a tower in float32. What has been copied is
not looked at again, so its pages may leave at once; the system reads one again from the file if it is needed after all.
Linux only, elsewhere nothing happens. Bits of a page: https://docs.kernel.org/admin-guide/mm/pagemap.html
"""

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

DONTNEED = 4  # madvise's MADV_DONTNEED on Linux
INTERVAL_S = 0.02
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
        with suppress(OSError):  # a system that hides /proc
            is_last = False
            while not is_last:
                is_last = ended.wait(INTERVAL_S)  # what was mapped then may stay mapped
                for start, end in mappings(name):
                    if not is_written((start, end)):
                        _madvise(start, end - start, DONTNEED)

    thread = threading.Thread(target=drop, name="given_back", daemon=True)
    try:
        thread.start()  # may be interrupted, once the thread runs
        yield
    finally:
        ended.set()
        with suppress(RuntimeError):  # it was not started
            thread.join()


def mappings(name: str) -> list[Place]:
    """Where this process has mapped the file `name`."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, file = line.split(maxsplit=5)
        if file == name:
            start, end = (int(address, 16) for address in place.split("-"))
            found.append((start, end))
    return found


def is_written(place: Place) -> bool:
    """Whether a page of a private mapping is no longer the file's: it would be lost."""
    first, last = (address // mmap.PAGESIZE for address in place)
    pages = np.fromfile("/proc/self/pagemap", np.uint64, last - first, offset=8 * first)
    return bool(((pages & (IS_PRESENT | IS_SWAPPED)) != 0)[(pages & OF_FILE) == 0].any())


def _madvise(start: int, size: int, advice: int) -> None:
    """A refused call costs memory and nothing else: it is not looked at."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)
