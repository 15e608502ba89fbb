"""data: URLs to bytes, as lenient as browsers and vLLM are: RFC 2397 with base64, whose padding may be missing."""

import base64
import binascii

from contract.errors import shown
from edge_runtime.gateway.failures import Failure

WHITE = str.maketrans("", "", " \t\r\n\f")
FRAMES = "video/jpeg"  # vLLM's form for a camera: each frame in base64, with commas between the frames


def decoded(url: str, param: str) -> bytes | list[bytes]:
    """The bytes that a data: URL carries; for data:video/jpeg a list, the bytes of each frame.

    Args:
        param: where the URL stands in the body.

    Raises:
        Failure: 400, the URL carries no base64.
    """
    header, comma, body = url[len("data:") :].partition(",")
    kind, *options = [part.strip().lower() for part in header.split(";")]
    if not comma or "base64" not in options:
        raise _failure(f"data URL starts with {shown(url[:40])}, data:image/…;base64,… is expected", param)
    if kind == FRAMES:
        return [_bytes(frame, param) for frame in body.split(",")]
    return _bytes(body, param)


def _bytes(text: str, param: str) -> bytes:
    text = text.translate(WHITE).rstrip("=") if not text.isalnum() else text
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise _failure(f"data URL is no base64: {error}", param) from error


def _failure(message: str, param: str) -> Failure:
    return Failure(400, message, param=param, code="invalid_media")
