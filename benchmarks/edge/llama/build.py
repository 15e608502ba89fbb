"""`python -m benchmarks.edge.llama.build` builds llama.cpp's mtmd from the source that llama-cpp-python has on PyPI.

The wheels hold a library for any processor; this builds it for the processor at hand, as its makers advise, in some
minutes.
"""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

REQUIREMENT = "llama-cpp-python==0.3.36"
ROOT = Path(".cache/peers/llama")
SOURCE = ROOT / "llama.cpp"
LIBRARY = ROOT / "build/libtower.so"
CMAKE = ("nice", "-n", "10", f"{sysconfig.get_path('scripts')}/cmake")


def fetch() -> None:
    """Unpack SOURCE from the source archive."""
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", REQUIREMENT], check=True)
        archive = next(Path(folder).glob("*.tar.gz"))
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        next(Path(folder).glob("*/vendor/llama.cpp")).rename(SOURCE)


def build() -> None:
    """Build LIBRARY."""
    folders: list[str | Path] = ["-S", Path(__file__).parent, "-B", LIBRARY.parent, f"-DLLAMA_CPP={SOURCE.resolve()}"]
    subprocess.run([*CMAKE, *folders, "-DCMAKE_BUILD_TYPE=Release"], check=True)
    subprocess.run([*CMAKE, "--build", LIBRARY.parent, "--target", "tower", "-j2"], check=True)


def main() -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    if not SOURCE.is_dir():
        fetch()
    build()


if __name__ == "__main__":
    main()
