"""Installs a wheel into a folder of its own, because it must not touch the project's environment."""

import subprocess
import sys
from pathlib import Path

from contract.errors import ServerError


def install_into(folder: Path, *requirement: str) -> None:
    """Run pip install --target, wheels only, for the Python that runs this.

    Raises:
        ServerError: pip is absent or failed; the message ends with the last words it wrote.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--target", str(folder), *requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"pip could not install {' '.join(requirement)}: {' '.join(done.stderr.split()[-60:])}")
