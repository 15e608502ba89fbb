"""Errors in the form that OpenAI's clients read: a status, and an object with message, type, param and code."""

import errno
import logging
import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from contract.errors import DeadlineExceeded, EdgeVlmError, InvalidInput, MissingExtra, NotFound, Unavailable, shortened

LOG = logging.getLogger("uvicorn.error")
STATUSES: tuple[tuple[type[EdgeVlmError], int], ...] = (
    (InvalidInput, 400),
    (NotFound, 404),
    (MissingExtra, 501),
    (DeadlineExceeded, 504),
    (Unavailable, 503),
)
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "invalid_request_error", 413: "invalid_request_error",
    415: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
RETRY_AFTER_S = 1
PREFIX = "sampling_parameters."  # the wire's prefix for values at the top of a body
MAX_MESSAGE = 1000  # characters


class Failure(Exception):
    """A request that ends with an error.

    Args:
        status: HTTP status.
        param: the field of the body that is wrong.
        code: OpenAI's word for the error, where it has one.
        retry_after_s: after how many seconds the client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(shortened(message, MAX_MESSAGE))
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self, body: dict[str, Any] | None = None) -> JSONResponse:
        """The answer, with this body or OpenAI's."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in (408, 413) or "Transfer-Encoding" in str(self):  # some of the body is unread
            headers["Connection"] = "close"
        return JSONResponse(self.body() if body is None else body, self.status, headers)


def failure_of(error: Exception) -> Failure:
    """Any exception as a Failure; this call writes an unexpected one to the log and does not show it to the client."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, HTTPException):
        return Failure(error.status_code, str(error.detail))
    if not isinstance(error, EdgeVlmError):
        LOG.error("unexpected error", exc_info=error)
        if is_exhausted(error):
            return Failure(
                503, "the gateway's machine has no memory, threads or open files left: try again later",
                code="overloaded", retry_after_s=RETRY_AFTER_S,
            )  # fmt: skip
        return Failure(500, "the gateway failed on this request, its log says why", code="internal_error")
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    message, param = str(error), None
    if match := re.match(rf"{re.escape(PREFIX)}(\w+)", message):
        message, param = message.removeprefix(PREFIX), match[1]
    return Failure(
        status, message, param=param, code=error.code.lower(), retry_after_s=RETRY_AFTER_S if status == 503 else None
    )


def is_exhausted(error: Exception) -> bool:
    """Whether an error says that the machine has no memory, thread, process or open file left: no request is at fault."""
    is_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)  # Python has no type for it
    is_errno = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, MemoryError) or is_thread or is_errno
