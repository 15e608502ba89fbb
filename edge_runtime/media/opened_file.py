"""A file that this module opens once: readers get the file that MediaAccess judged, whatever happens to its name.

A name may lead elsewhere a moment later (somebody puts a link in its place), a descriptor may not. This module opens
only regular files: a pipe may never end, and a device may already do something when somebody opens it.
"""

import os
import stat
import weakref
from pathlib import Path
from typing import BinaryIO

from contract.errors import MediaError

MAX_FILE_BYTES = 1 << 29  # for a picture; no picture that the device decodes is larger, even uncompressed
FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class OpenedFile:
    """A regular file that stays open as long as this object lives, so that anybody can read it.

    Two objects are equal where they are the same file of the same size and modification time, so a file that somebody
    rewrites in between is another one.

    Args:
        descriptor: this object owns it and closes it at its own end, also where this call fails.
        name: for error messages.

    Attributes:
        num_bytes: the size of the file when this object took it.
        identity: device, inode, size in bytes and modification time in nanoseconds.

    Raises:
        MediaError: the descriptor is no regular file.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name, self.descriptor = name, descriptor
        self._closed = weakref.finalize(self, os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise not_a_file(name)
        self.num_bytes = status.st_size
        self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenedFile) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def read(self) -> bytes:
        """All bytes of the file.

        Raises:
            MediaError: the file is larger than MAX_FILE_BYTES, or cannot be read.
        """
        if self.num_bytes > MAX_FILE_BYTES:
            raise MediaError(f"{self.name} has {self.num_bytes} bytes, up to {MAX_FILE_BYTES} are read")
        return self.start(self.num_bytes)

    def start(self, num_bytes: int) -> bytes:
        """The first `num_bytes` bytes of the file, or all where it has fewer.

        Raises:
            MediaError: they cannot be read.
        """
        try:
            with open(self.descriptor, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return file.read(num_bytes)
        except OSError as error:
            raise unreadable(self.name, error) from error

    def stream(self) -> BinaryIO:
        """The file from its start, on another descriptor. Read one stream at a time: all streams share one position."""
        file = os.fdopen(os.dup(self.descriptor), "rb")
        file.seek(0)
        return file

    def close(self) -> None:
        """Close the file now."""
        self._closed()


def open_file(path: Path) -> OpenedFile:
    """Open the file that a path leads to; the system follows links.

    Raises:
        MediaError: the path leads to no regular file, or the file cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise not_a_file(str(path))
        return OpenedFile(os.open(path, FLAGS), str(path))
    except OSError as error:
        raise unreadable(str(path), error) from error


def open_within(folder: Path, path: Path) -> int:
    """Open the file or folder `path` from `folder` down and follow no link on the way.

    Args:
        folder: a path without links. Somebody else may write into the folder, but not move it.
        path: a path inside `folder`, without links and `..`.

    Returns:
        The descriptor; the caller closes it.

    Raises:
        MediaError: this system cannot open files below a folder.
        OSError: a part of the path is a link by now, or the path cannot be opened.
    """
    if os.open not in os.supports_dir_fd:
        raise MediaError(f"{path} is not read: this system cannot open files below a folder, send the bytes instead")
    here = os.open(folder, FLAGS | os.O_DIRECTORY)
    for part in path.relative_to(folder).parts:
        try:
            below = os.open(part, FLAGS | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def not_a_file(name: str) -> MediaError:
    return MediaError(f"{name:.200} cannot be read: it is no file; give the path of one")


def unreadable(name: str, error: Exception) -> MediaError:
    return MediaError(f"{name:.200} cannot be read: {getattr(error, 'strerror', None) or error}")
