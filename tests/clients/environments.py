"""Where each client's package lies: an environment of its own under .cache/clients, made once for each set of versions."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / ".cache" / "clients"
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Environment:
    """A folder with the packages of one client.

    Attributes:
        name: of the folder.
        packages: with their versions, the client's own first.
        is_node: whether they are npm's.
    """

    name: str
    packages: tuple[str, ...]
    is_node: bool = False

    @property
    def version(self) -> str:
        return self.packages[0].rpartition("@" if self.is_node else "==")[2]

    def command(self, program: str) -> list[str]:
        """How to run a program of `programs/` there; this call makes the environment if it is missing."""
        folder = FOLDER / self.name
        mark = folder / "packages.txt"
        if not mark.is_file() or mark.read_text() != "\n".join(self.packages):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._install(folder)
            mark.write_text("\n".join(self.packages))
        if not self.is_node:
            return [str(folder / "bin/python"), str(PROGRAMS / f"{program}.py")]
        for path in PROGRAMS.glob("*.mjs"):  # node looks for packages beside the program
            shutil.copy(path, folder)
        return ["node", str(folder / f"{program}.mjs")]

    def _install(self, folder: Path) -> None:
        if self.is_node:
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            command = ["npm", "install", "--no-audit", "--no-fund", *self.packages]
        else:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "--disable-pip-version-check"]
            command = [*pip, "install", "--quiet", "--no-compile", *self.packages]
        subprocess.run(command, cwd=folder, check=True)
