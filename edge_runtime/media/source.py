"""What a source says: a path, a file:// or data: URL, or bytes. Nothing here opens a file or a connection.

A string names a file or carries its bytes; `find` refuses every other scheme (access.py decides which files may be
read, and fetches http and https where an option allows it).
"""

import base64
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contract.errors import MediaError

Source = str | os.PathLike[str] | bytes

MAX_PATH = 4096  # characters of a path; base64 text is longer
WHITE_SPACE = str.maketrans("", "", " \t\n\r\f")
IS_BASE64 = re.compile(r"; *base64 *\Z", re.IGNORECASE)


def find(source: Source, kind: str) -> Path | bytes:
    """The file a source names, or the bytes it carries.

    Args:
        source: a path, file:// or data: URL, or encoded bytes.
        kind: "picture" or "video", for error messages.

    Raises:
        MediaError: the source has another type, is a URL of another scheme, a data: URL without base64, or no path.
    """
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        raise MediaError(f"{kind} is {type(source).__name__}, a path, a URL or bytes are expected")
    text = os.fspath(source)
    if isinstance(text, bytes):  # a PathLike may give bytes
        text = os.fsdecode(text)
    scheme = text[:7].lower()
    if scheme.startswith("data:"):
        return carried(text, kind)
    if scheme == "file://":
        return _path(_file_url(text))
    if "://" in text[:16]:
        raise MediaError(f"{text.split(':')[0]}:// is not read here: fetch the {kind} and pass its bytes or path")
    return _path(text)


def is_address(source: object) -> bool:
    """Whether a source is an http or https URL."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def _path(text: str) -> Path:
    if "\0" in text or len(text) > MAX_PATH:
        raise MediaError(
            f"{text[:40]!r}… is no path: it has {len(text)} characters, up to {MAX_PATH} without NUL are expected"
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:  # the text has half of a surrogate pair
        raise MediaError(f"{text[:40]!r} is no path: no file name holds its character {error.start}") from error
    return Path(text)


def _file_url(text: str) -> str:
    try:
        url = urlsplit(text)
    except ValueError as error:  # the URL has a bracket without its other half
        raise MediaError(f"{text[:80]!r} is no URL: {error}") from error
    if url.netloc not in ("", "localhost"):
        raise MediaError(
            f"file:// URL names the host {url.netloc[:80]!r}, file:///path or file://localhost/path is expected"
        )
    return unquote(url.path)


def carried(text: str, kind: str) -> bytes:
    """The bytes of a data: URL (RFC 2397), as lenient as browsers are: https://fetch.spec.whatwg.org/#data-urls.

    Args:
        kind: "picture" or "video", for error messages.

    Raises:
        MediaError: the URL carries no base64.
    """
    header, comma, body = text.partition(",")
    if not comma or not IS_BASE64.search(header):
        noun = kind.replace("picture", "image")
        raise MediaError(f"data URL starts with {header[:40]!r}, data:{noun}/…;base64,… is expected")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:  # also where a character is not ASCII
        plain = unquote(body).translate(WHITE_SPACE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise MediaError(f"the data of the {kind} is no base64: {error}") from error
