"""`python -m kernels.build` compiles the operators for x86-64 and Arm Linux into edge_runtime/libraries/.

A library consists of the sources of this folder and of the folders that its target lists. One of these holds
`target.h`, the target's sizes and types; tile.h says what they are.

The compiler is zig's, from PyPI, because it builds for both from either, against an old glibc. The headers of
onnxruntime's C interface are in no Python package; they come from Debian's, whose hash this module checks. The
interface only grows, so a library built against 1.21 loads in every onnxruntime from 1.21 on.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "kernels"
LIBRARIES = ROOT / "edge_runtime" / "libraries"
HEADERS = ROOT / ".cache" / "onnxruntime-headers"
PACKAGE = "http://deb.debian.org/debian/pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"


@dataclass(frozen=True)
class Target:
    """What a library is compiled for: its folders of kernels/, and what the compiler may use."""

    folders: tuple[str, ...]
    flags: tuple[str, ...]


TARGETS = {  # by processor and instructions; edge_runtime.tower.kernels chooses among them
    "x86_64.avx512": Target(
        ("x86", "unsigned8", "avx512"),
        ("-mcpu=x86_64_v3+avx512f+avx512bw+avx512dq+avx512vl+avx512vnni", "-mprefer-vector-width=512"),
    ),
    "x86_64.avx2": Target(("x86", "avx2"), ("-mcpu=x86_64_v3",)),
    "aarch64.i8mm": Target(("arm", "unsigned8", "i8mm"), ("-mcpu=generic+dotprod+i8mm",)),
    "aarch64.dotprod": Target(("arm", "signed8", "dotprod"), ("-mcpu=generic+dotprod",)),
    "aarch64.neon": Target(("arm", "signed8", "neon"), ("-mcpu=generic",)),
}
FLAGS = [
    # a process loads a library to ask it whether the processor has its instructions: nothing in it may run before that
    *("-O3", "-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wglobal-constructors", "-Werror"),
    *("-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
    # the compiler may sum in any order, so that loops become vector code; NaN and infinity keep their meaning
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-freciprocal-math", "-fno-signed-zeros"),
]


def headers() -> Path:
    """The folder of onnxruntime_c_api.h; the first call downloads it.

    Raises:
        RuntimeError: the download is not the expected file.
    """
    found = HEADERS / "usr/include/onnxruntime"
    if not found.is_dir():
        with urllib.request.urlopen(PACKAGE, timeout=60) as answer:
            package = answer.read()
        if (digest := hashlib.sha256(package).hexdigest()) != SHA256:
            raise RuntimeError(f"{PACKAGE} has SHA-256 {digest}, {SHA256} is expected: look at what the address serves")
        with tarfile.open(fileobj=io.BytesIO(_member(package, b"data.tar"))) as files:
            files.extractall(HEADERS, filter="data")
    return found


def _member(archive: bytes, name: bytes) -> bytes:
    """The file whose name begins with `name` in an ar archive: a line of magic, then headers of 60 bytes."""
    place = 8
    while place < len(archive):
        header, start = archive[place : place + 60], place + 60
        size = int(header[48:58])
        if header.startswith(name):
            return archive[start : start + size]
        place = start + size + size % 2
    raise RuntimeError(f"{PACKAGE} holds no {name.decode()}, which every Debian package has: look at what it serves")


def build(target: str) -> Path:
    """Compile for one of TARGETS; returns the library. It links as C: the sources use only templates of the C++
    library, and zig would need a minute for each target to compile the rest."""
    LIBRARIES.mkdir(exist_ok=True)
    library, machine = LIBRARIES / f"libedge_vlm.{target}.so", target.partition(".")[0]
    platform = ["-target", f"{machine}-linux-gnu.2.28", *TARGETS[target].flags]
    folders = [SOURCES, *(SOURCES / name for name in TARGETS[target].folders)]
    include = [f"-I{path}" for path in (*folders, headers())]
    sources = [path for folder in folders for path in sorted(folder.glob("*.cc"))]
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/{number}.o" for number in range(len(sources))]
        for path, made in zip(sources, objects, strict=True):
            _zig("c++", *platform, *FLAGS, *include, "-c", str(path), "-o", made)
        _zig("cc", *platform, "-shared", "-s", *objects, "-lm", "-o", f"{folder}/{library.name}")
        partial = library.with_suffix(".partial")
        shutil.copyfile(f"{folder}/{library.name}", partial)
    return partial.replace(library)  # processes that have loaded the library before keep it


def _zig(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", *arguments], check=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or TARGETS:
        print(build(name))
