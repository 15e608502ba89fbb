"""The Python environment that Triton's model processes run in: numpy 1 in front of the project's own packages.

The wheel's stub reads numpy 2 arrays as zeros, so it gets a thin environment with numpy 1 that borrows everything else.
The stub also loads libpython as a shared library, and standard library modules fit that build only: so an interpreter
that has such a library makes the environment.
"""

import hashlib
import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ServerError
from serving.triton.cache import made_once
from serving.triton.pip import install_into

NUMPY_REQUIREMENT = "numpy>=1.26,<2"
SYSTEM_FOLDERS = (Path("/usr/bin"), Path("/usr/local/bin"))
_LAYOUT = 1  # raise when the environment is made in another way
_ASK = """import json, sys, sysconfig as s
print(json.dumps([list(sys.version_info[:3]), s.get_config_var("LIBDIR"), s.get_config_var("INSTSONAME")]))"""


@dataclass(frozen=True)
class Interpreter:
    """A Python of this minor version with a shared libpython, and the folder that holds the library."""

    python: Path
    version: str
    library_folder: Path


@dataclass(frozen=True)
class StubEnvironment:
    """bin goes first in PATH, where the stub looks for its Python; library_folder goes into LD_LIBRARY_PATH."""

    bin: Path
    library_folder: Path


def stub_environment(*folders: Path) -> StubEnvironment:
    """The environment for the running interpreter's packages, with `folders` in front, made on first use (5 s).

    Raises:
        ServerError: no interpreter with a shared libpython, or pip failed.
    """
    interpreter = find_interpreter()
    own = (sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    borrowed = [*dict.fromkeys([*map(str, folders), *own])]
    root = str(Path(__file__).parents[2])  # for a checkout that is not installed
    facts = json.dumps([_LAYOUT, str(interpreter.python), interpreter.version, borrowed, root, NUMPY_REQUIREMENT])
    name = f"stub-{interpreter.version}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    folder = made_once(name, lambda work: _make(work, interpreter, borrowed, root))
    return StubEnvironment(folder / "bin", interpreter.library_folder)


def find_interpreter() -> Interpreter:
    """The running Python itself if it has a shared libpython, else the system's of the same minor version.

    Raises:
        ServerError: neither has one; the message says which package to install.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (folder / name for folder in (Path(sys.base_prefix) / "bin", *SYSTEM_FOLDERS)):
        if not python.is_file():
            continue
        answer = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
        if answer.returncode:
            continue
        version, folder, library = json.loads(answer.stdout)
        if tuple(version[:2]) == sys.version_info[:2] and library and library.startswith("libpython"):
            found = next((p for p in (Path(folder), Path("/usr/lib")) if (p / library).is_file()), None)
            if found is not None and ".so" in library:
                return Interpreter(python, ".".join(map(str, version)), found)
    raise ServerError(
        f"Triton's Python backend needs a shared lib{name}.so, which neither {sys.base_prefix} nor the system has: "
        f"apt-get install lib{name} {name}, or use a Python built with --enable-shared"
    )


def _make(folder: Path, interpreter: Interpreter, borrowed: list[str], root: str) -> None:
    done = subprocess.run(
        [interpreter.python, "-m", "venv", "--without-pip", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerError(f"{interpreter.python} -m venv failed: {done.stdout.strip()} {done.stderr.strip()}")
    packages = folder / "lib" / f"python{'.'.join(interpreter.version.split('.')[:2])}" / "site-packages"
    install_into(packages, NUMPY_REQUIREMENT)
    added = "; ".join(f"site.addsitedir({path!r})" for path in borrowed)  # unlike a plain line, it reads .pth files
    (packages / "edge_vlm_borrowed.pth").write_text(f"import site; {added}\n{root}\n", encoding="utf-8")
