"""Where a picture or video lies: a path, a file:// or data: URL. Nothing here opens a connection.

A string names a file or carries its bytes; every other scheme is refused (access.py says which files may be read, and
fetches http and https where that was allowed).
"""

import base64
import binascii
import os
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from contract.errors import MediaError

Source = str | os.PathLike[str] | bytes

MAX_PATH = 4096  # characters of a path; base64 without its data: in front is longer
MAX_FILE_BYTES = 1 << 29  # of a picture; the largest one allowed is smaller without any compression


def find(source: Source, kind: str) -> Path | bytes:
    """The file a source names, or the bytes it carries.

    Args:
        source: a path, file:// or data: URL, or encoded bytes.
        kind: "picture" or "video", for messages.

    Raises:
        MediaError: another type, a URL of another scheme, a data: URL that is no base64, or no path.
    """
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        raise MediaError(f"{kind} is {type(source).__name__}, a path, a URL or bytes are expected")
    text = os.fspath(source)
    if "\0" in text or (len(text) > MAX_PATH and not text.startswith("data:")):
        raise MediaError(f"{text[:40]!r}… is no path: it has {len(text)} characters, or a zero among them")
    if text.startswith("data:"):
        header, comma, body = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise MediaError(
                f"data URL starts with {header[:40]!r}, data:{kind.replace('picture', 'image')}/…;base64,… is expected"
            )
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise MediaError(f"data URL is no base64: {error}") from error
    if text.startswith("file://"):
        url = urlsplit(text)
        if url.netloc not in ("", "localhost"):
            raise MediaError(
                f"file:// URL names the host {url.netloc!r}, file:///path or file://localhost/path is expected"
            )
        return Path(unquote(url.path))
    if "://" in text[:16]:
        raise MediaError(f"{text.split(':')[0]}:// is not read here: fetch the {kind} and pass its bytes or path")
    return Path(text)


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        MediaError: it is no file, larger than MAX_FILE_BYTES, or cannot be read.
    """
    with open_file(path) as file:
        try:
            if (size := os.fstat(file.fileno()).st_size) > MAX_FILE_BYTES:
                raise MediaError(f"{path} has {size} bytes, up to {MAX_FILE_BYTES} are read")
            return file.read()
        except OSError as error:
            raise MediaError(f"{path} cannot be read: {error.strerror}") from error


def open_file(path: Path) -> BinaryIO:
    """A file, opened; a pipe or a device, which may never end or begin, is none.

    Raises:
        MediaError: it is no file, or cannot be read.
    """
    try:
        if not path.exists() or path.is_file():  # what is not there is for open to say
            return path.open("rb")
    except OSError as error:
        raise MediaError(f"{path!s:.200} cannot be read: {error.strerror or error}") from error
    raise MediaError(f"{path!s:.200} cannot be read: it is no file")
