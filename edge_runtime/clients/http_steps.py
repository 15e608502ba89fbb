"""What goes over HTTP and comes back, one step at a time: the words between a call and the sockets of a client."""

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.errors import EdgeVlmError, InvalidInput, NotFound, ServerError, Unavailable, from_wire, shown
from edge_runtime.clients.patience import FULL

MAX_PAGE_CHARACTERS = 200  # the most that a message shows of a proxy's page
SHORTEST_S = 1e-3  # a socket takes 0 for "do not wait"


@dataclass(frozen=True)
class Ask:
    """What to send: a POST of the body, a GET where there is none.

    Attributes:
        pause_s: how many seconds to wait before.
        is_stream: the answer is a stream of server-sent events.
        is_upload: the server only keeps items, so a second try does no harm.
    """

    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_stream: bool = False
    is_upload: bool = False
    pause_s: float = 0.0

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    @property
    def may_repeat(self) -> bool:
        """Whether the client may send it again where it cannot know if the server has received it."""
        return self.body is None or self.is_upload


@dataclass(frozen=True)
class Reply:
    """What came back. HttpCall.piece gets the body of a stream line by line, so it is empty here."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def error(self) -> EdgeVlmError | None:
        """The typed error, None for a success."""
        if self.status == 200:
            return None
        known = from_wire(self._message())
        return http_error(self.status, str(known)) if isinstance(known, ServerError) else known

    def _message(self) -> str:
        """What the body says: Triton's JSON, the same as an event of a stream, or a proxy's page."""
        text = self.body.decode(errors="replace").strip()
        try:
            return str(json.loads(text.removeprefix("data:"))["error"])
        except (ValueError, KeyError, TypeError):
            title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
            return title[1].strip() if title else text[:MAX_PAGE_CHARACTERS]

    def json(self) -> Any:
        """The value of the body's JSON.

        Raises:
            EdgeVlmError: the reply is an error, or its body is no JSON.
        """
        if (error := self.error()) is not None:
            raise error
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError as error:
            raise ServerError(
                f"the answer is no JSON: {shown(self.body)}: is it Triton that listens at this address?"
            ) from error


def http_error(status: int, message: str) -> EdgeVlmError:
    """The typed error of an HTTP status, for a body that names no error of this project."""
    if status in (401, 403, 407):
        message += "; credentials are missing or wrong: give headers={'authorization': ...} to the client"
    if FULL in message:
        return Unavailable(f"HTTP {status}: {message}: the server has no room: try again later")
    kinds = {400: InvalidInput, 404: NotFound, 429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable}
    return kinds.get(status, ServerError)(f"HTTP {status}: {message}")


Steps = Generator[Ask, Reply, None]


def advance(steps: Steps, reply: Reply | None = None) -> Ask | None:
    """What to send next; None when the steps are over."""
    try:
        return next(steps) if reply is None else steps.send(reply)
    except StopIteration:
        return None
