"""Folders that are whole or absent: a writer fills them beside their place and renames them, a reader verifies them."""

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Protocol

from blake3 import blake3

from contract.errors import BundleError

OPENING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
Identity = tuple[int, int, int, int, int]  # device, inode, bytes, time of the content, time of the inode
BLAKE3 = "blake3:"  # in front of a digest; a manifest of an older export has the digits of a SHA-256 alone
DIGEST = re.compile(f"({BLAKE3})?[0-9a-f]{{64}}")


class Hash(Protocol):
    """What hashlib's hashes have, and blake3."""

    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def is_plain_name(name: str) -> bool:
    """Whether a name that stands in a file can only mean another file in the same folder."""
    return (
        bool(name)
        and PurePath(name).name == name
        and "\0" not in name
        and len(name.encode(errors="replace")) <= 255
        and name != ".."
    )


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file. Nobody waits for the other end of a pipe, or reads a device that never ends.

    Raises:
        OSError: the process cannot read the file, or it is a pipe, a device, a socket or a folder.
    """
    descriptor = os.open(path, OPENING)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file.

    Raises:
        OSError: as read_regular.
        UnicodeDecodeError: the bytes are no UTF-8.
    """
    return read_regular(path).decode("utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits; it reads the file in blocks.

    Raises:
        OSError: the process cannot read the file.
    """
    return _hashed(path, hashlib.sha256())[0]


def digest(path: Path) -> str:
    """The digest of a file as a manifest holds it, "blake3:" and 64 hex digits; it reads the file in blocks.

    BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) is as hard to forge as SHA-256, and one core of a device reads
    weights with it two to five times as fast.

    Raises:
        OSError: the process cannot read the file.
    """
    return BLAKE3 + _hashed(path, blake3())[0]


def identity(status: os.stat_result) -> Identity:
    """What a file is, whatever name leads to it: another file, or another content, has another identity."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hashed(path: Path, made: Hash) -> tuple[str, Identity]:
    block = memoryview(bytearray(1 << 18))  # stays in the second cache
    with path.open("rb", buffering=0) as file:
        before = identity(os.fstat(file.fileno()))
        while size := file.readinto(block):
            made.update(block[:size])
    return made.hexdigest(), before


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that replaces it when the block ends well and vanishes when it does not.

    Raises:
        OSError: the disk is full, or the process may not write there; `target` is then as it was.
    """
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


def check_named(folder: Path, digests: Mapping[str, str], opened: Iterable[str]) -> None:
    """Make sure that nobody opens a file of a bundle without a digest; a bundle may lack the file itself.

    Args:
        digests: as `verify`.
        opened: names of files that a reader opens where they lie in the folder.

    Raises:
        BundleError: such a file lies in the folder, and `digests` does not name it.
    """
    for name in opened:
        if name not in digests and os.path.lexists(folder / name):
            raise BundleError(
                f"{folder / name} has no digest: the manifest's files has no {name!r}: export the bundle again"
            )


def verify(folder: Path, digests: Mapping[str, str]) -> dict[str, Identity]:
    """Compare every named file with its digest; returns the identity of each file that it compared.

    Args:
        digests: what `digest` gave for each file, or the 64 hex digits of its SHA-256, by its name in `folder`.

    Raises:
        BundleError: a file is missing, cannot be read or has changed.
    """
    found: dict[str, Identity] = {}
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing: copy the bundle again")
        kind, made = ("BLAKE3", blake3()) if expected.startswith(BLAKE3) else ("SHA-256", hashlib.sha256())
        try:
            digits, found[name] = _hashed(path, made)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        if digits != (told := expected.removeprefix(BLAKE3)):
            raise BundleError(
                f"{path} has {kind} {digits}, the manifest says {told}: the file was changed or cut short, copy the "
                "bundle again"
            )
    return found


def check_unchanged(folder: Path, found: Mapping[str, Identity]) -> None:
    """Make sure that the names still lead to the files that `verify` compared.

    Args:
        found: what `verify` returned.

    Raises:
        BundleError: a name leads to another file or another content.
    """
    for name, before in found.items():
        try:
            now: Identity | None = identity((folder / name).stat())
        except OSError:
            now = None
        if now != before:
            raise BundleError(f"{folder / name} was changed while it was being opened: open the bundle again")
