"""The library of fast operators for this processor, where there is one.

A bundle's graph says in standard operators what each of them computes, so without the library everything still runs.
It needs AVX-512 with VNNI and BF16, or Armv8.6 with I8MM and BF16, and asks the processor itself.
"""

import ctypes
import platform
from functools import cache
from pathlib import Path

LIBRARIES = Path(__file__).parent / "libraries"


@cache
def library() -> Path | None:
    """The library to register with onnxruntime; None where none was built or this processor lacks the instructions."""
    path = LIBRARIES / f"libedge_vlm.{platform.machine()}.so"
    if not path.is_file() or platform.system() != "Linux":
        return None
    try:
        return path if ctypes.CDLL(str(path)).EdgeVlmIsSupported() else None
    except OSError:  # an older libc than it was built for
        return None
