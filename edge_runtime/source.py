"""Where a picture or video lies: a path, a file:// or data: URL. Nothing here opens a connection.

A server-side or gateway caller passes strings that others wrote, so a string names a file or carries its bytes; every
other scheme is refused (fetch.py reads http and https where that was allowed).
"""

import base64
import binascii
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contract.errors import MediaError

Source = str | os.PathLike[str] | bytes


def find(source: Source, kind: str) -> Path | bytes:
    """The file a source names, or the bytes it carries.

    Args:
        source: a path, file:// or data: URL, or encoded bytes.
        kind: "picture" or "video", for messages.

    Raises:
        MediaError: a URL of another scheme, or a data: URL that is no base64.
    """
    if isinstance(source, bytes):
        return source
    text = os.fspath(source)
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
        return Path(unquote(urlsplit(text).path))
    if "://" in text[:16]:
        raise MediaError(f"{text.split(':')[0]}:// is not read here: fetch the {kind} and pass its bytes or path")
    return Path(text)


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        MediaError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error
