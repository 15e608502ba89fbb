"""Folders that are whole or absent: written beside their place, hashed, renamed into it, verified before use."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import BundleError


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that replaces it when the block ends well and vanishes when it does not."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            try:
                os.replace(target, old / target.name)
                os.replace(work, target)
            finally:
                if not target.exists():  # stopped or refused in between
                    os.replace(old / target.name, target)
                shutil.rmtree(old)
        else:
            os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def verify(folder: Path, digests: dict[str, str]) -> None:
    """Compare every named file with its SHA-256.

    Raises:
        BundleError: a file is missing or has changed.
    """
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy the bundle again")
        if (found := sha256(path)) != expected:
            raise BundleError(
                f"{path} has SHA-256 {found}, the manifest says {expected}: the file was changed or cut short, "
                "copy the bundle again"
            )
