"""Every error a user meets, each with the code it has on the wire.

EdgeVlmError
 |- InvalidInput (ValueError)            INVALID_ARG   a tensor, a prompt or a parameter is wrong
 |   |- FingerprintMismatch              INVALID_ARG   the embeddings come from another tower
 |   '- MediaError                       INVALID_ARG   not a picture, truncated, too large
 |- BundleError (ValueError)             INTERNAL      an edge bundle or checkpoint is damaged or of another format
 |- ParityError (ValueError)             INTERNAL      an export misses its gate
 |- MissingExtra (ImportError)           UNSUPPORTED   an optional dependency is not installed
 |- NotFound (LookupError)               NOT_FOUND     a key the server does not hold
 |- Unavailable (RuntimeError)           UNAVAILABLE   the server is full, loading or away
 |- DeadlineExceeded (TimeoutError)      DEADLINE_EXCEEDED  the request's time was over before its answer
 '- ServerError (RuntimeError)           INTERNAL      the server failed

Messages name the wrong value, the allowed one and what to do. On streams and through BLS, Triton keeps only the text
of an error, so `wire` writes the code into it: `[INVALID_ARG] ...`. An error that a check of contract.checks raises
carries that check's name.
"""

import re
import reprlib

MAX_VALUE_CHARACTERS = 200  # so much of a refused value a message repeats
MAX_MESSAGE_CHARACTERS = 1500  # gRPC keeps 8 KiB of a message in which a character may take nine bytes

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_VALUE_CHARACTERS
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20
_SHORT.maxlevel = 3  # with 20 entries a level, so that nested lists are cheap too


def shown(value: object) -> str:
    """A refused value as a message repeats it: its repr, shortened to MAX_VALUE_CHARACTERS.

    It never writes a long list or text out first, so the cost does not grow with the value.
    """
    if isinstance(value, bytes):
        value = value[:MAX_VALUE_CHARACTERS]
    return shortened(_SHORT.repr(value), MAX_VALUE_CHARACTERS)


def shortened(text: str, max_characters: int = MAX_VALUE_CHARACTERS) -> str:
    """The text, or its beginning and `…` where it is longer than max_characters."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


class EdgeVlmError(Exception):
    """Root of all errors of this package.

    Args:
        check: the name that contract.checks gives the check that raises it; None where no check of a request does.
    """

    code = "INTERNAL"

    def __init__(self, message: str = "", *, check: str | None = None) -> None:
        super().__init__(message)
        self.check = check

    def wire(self) -> str:
        """The message as it travels, code first, cut where a server or a proxy would refuse its length."""
        return shortened(f"[{self.code}] {self}", MAX_MESSAGE_CHARACTERS)


class InvalidInput(EdgeVlmError, ValueError):
    """A tensor, a prompt or a parameter that breaks the contract."""

    code = "INVALID_ARG"


class FingerprintMismatch(InvalidInput):
    """Embeddings, or a bundle, of another tower than the one with which the language model was trained.

    Args:
        got, expected: the fingerprints of the two encoders.
        owner: who expects: the server, or MODEL of an export.
    """

    def __init__(self, got: str, expected: str, owner: str = "the server") -> None:
        super().__init__(
            f"encoder_fingerprint is {shown(got)}, {owner} has {expected!r}: use the bundle that was exported from the same "
            "checkpoint",
            check="fingerprint-other",
        )


class MediaError(InvalidInput):
    """A picture or video that this package cannot use."""


class BundleError(EdgeVlmError, ValueError):
    """An edge bundle or language checkpoint that is damaged, incomplete or of another format version."""


class ParityError(EdgeVlmError, ValueError):
    """An exported graph that does not compute what the original tower computes."""


class MissingExtra(EdgeVlmError, ImportError):
    """An optional dependency that is not installed."""

    code = "UNSUPPORTED"

    def __init__(self, feature: str, extra: str, command: str | None = None) -> None:
        command = command or f"pip install 'edge-vlm[{extra}]'"
        super().__init__(f"{feature} needs an extra: {command}")


class NotFound(EdgeVlmError, LookupError):
    """The caller asks by name for something that is not there."""

    code = "NOT_FOUND"


class Unavailable(EdgeVlmError, RuntimeError):
    """The server cannot take the request now; the same request may succeed later."""

    code = "UNAVAILABLE"


class DeadlineExceeded(EdgeVlmError, TimeoutError):
    """The request's time, or its time in the queue, was over. Triton has no such code: it travels as UNAVAILABLE."""

    code = "DEADLINE_EXCEEDED"


class ServerError(EdgeVlmError, RuntimeError):
    """The server failed, or answered something outside the contract."""


_BY_CODE: dict[str, type[EdgeVlmError]] = {
    "INVALID_ARG": InvalidInput,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}


def from_wire(message: str) -> EdgeVlmError:
    """The typed error behind a server's message; ServerError where the message carries no known code."""
    match = re.search(r"\[([A-Z_]+)\] (.*)", message, re.DOTALL)
    if match and match[1] in _BY_CODE:
        return _BY_CODE[match[1]](match[2])
    return ServerError(match[2] if match else message)
