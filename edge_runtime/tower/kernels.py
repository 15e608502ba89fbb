"""The library of fast operators for this processor, where there is one.

A bundle's graph says in standard operators what each fast one computes, so onnxruntime also runs it without a library.
There are five libraries: one for AVX-512 with VNNI, which also uses AMX where a processor has it; one for AVX2; one for
Armv8.6 with I8MM; one for Armv8.2 with dot products; one for every other 64-bit Arm processor. Each library asks the
processor itself what it can do.
"""

import ctypes
import logging
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
LIBRARIES = Path(__file__).parents[1] / "libraries"
INSTRUCTIONS = {"x86_64": ("avx512", "avx2"), "aarch64": ("i8mm", "dotprod", "neon")}  # the fastest first


def supported() -> Iterator[Path]:
    """The libraries whose instructions this processor has, the fastest first; none where nobody built one."""
    machine = platform.machine() if platform.system() == "Linux" else ""
    for instructions in INSTRUCTIONS.get(machine, ()):
        path = LIBRARIES / f"libedge_vlm.{machine}.{instructions}.so"
        if path.is_file() and _is_supported(path):
            yield path


@cache
def library() -> Path | None:
    """The library for onnxruntime; None where nobody built one, or this processor lacks the instructions of each."""
    found = next(supported(), None)
    if found is not None:
        log.info("kernels: %s", found.name)
    elif platform.system() == "Linux" and platform.machine() in INSTRUCTIONS and not any(LIBRARIES.glob("*.so")):
        log.warning(
            "edge-vlm runs without its kernels: %s holds none, and int4 takes about 2.5 times as long. Install a wheel of "
            "make wheels, or run python -m kernels.build in a checkout",
            LIBRARIES,
        )
    return found


def instructions() -> str | None:
    """The instructions that the chosen library uses, one of INSTRUCTIONS; None without a library."""
    path = library()
    return None if path is None else path.name.split(".")[2]


def has_matrix_tiles() -> bool:
    """Whether the chosen library multiplies on matrix tiles (AMX): the processor has them, and the system lets this
    process use them."""
    path = library()
    return path is not None and bool(ctypes.CDLL(str(path)).EdgeVlmHasMatrix())


def multiplies_bf16() -> bool:
    """Whether the chosen library multiplies in bf16 the layers that may be: it does so on matrix tiles, and on vectors
    where this process has timed bf16 and float32 and found bf16 quicker."""
    path = library()
    return path is not None and bool(ctypes.CDLL(str(path)).EdgeVlmMultipliesBf16())


def _is_supported(path: Path) -> bool:
    try:
        return bool(ctypes.CDLL(str(path)).EdgeVlmIsSupported())
    except OSError:  # this libc is older than the one that the library needs
        return False
