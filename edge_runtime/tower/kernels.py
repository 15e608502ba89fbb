"""The library of fast operators for this processor, where there is one.

A bundle's graph says in standard operators what each of them computes, so without the library everything still runs.
There is one for AVX-512 with VNNI, which also uses AMX where a processor has that, and one for AVX2; one for Armv8.6 with I8MM, one for Armv8.2 with
dot products, and one for every other 64-bit Arm processor. Each asks the processor itself.
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
    """The libraries whose instructions this processor has, the fastest first; none where none was built."""
    machine = platform.machine() if platform.system() == "Linux" else ""
    for instructions in INSTRUCTIONS.get(machine, ()):
        path = LIBRARIES / f"libedge_vlm.{machine}.{instructions}.so"
        if path.is_file() and _is_supported(path):
            yield path


@cache
def library() -> Path | None:
    """The library to register with onnxruntime; None where none was built or this processor lacks the instructions."""
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
    """What the chosen library is made of: one of INSTRUCTIONS; None without a library."""
    path = library()
    return None if path is None else path.name.split(".")[2]


def has_matrix_tiles() -> bool:
    """Whether the chosen library multiplies on matrix tiles (AMX): the processor has them, and the system lets this
    process use them."""
    path = library()
    return path is not None and bool(ctypes.CDLL(str(path)).EdgeVlmHasMatrix())


def multiplies_bf16() -> bool:
    """Whether the chosen library multiplies in bf16 the layers that may be: on matrix tiles, or on vectors where a short
    timing of this process found bf16 quicker than float32."""
    path = library()
    return path is not None and bool(ctypes.CDLL(str(path)).EdgeVlmMultipliesBf16())


def _is_supported(path: Path) -> bool:
    try:
        return bool(ctypes.CDLL(str(path)).EdgeVlmIsSupported())
    except OSError:  # an older libc than it was built for
        return False
