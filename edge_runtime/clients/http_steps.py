"""What goes over HTTP and comes back, one step at a time: the words between a call and the sockets of a client."""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.errors import EdgeVlmError, InvalidInput, NotFound, ServerError, Unavailable, from_wire

SHORTEST_S = 1e-3  # a socket takes 0 for "do not wait"


@dataclass(frozen=True)
class Ask:
    """What to send: a POST of the body, a GET where there is none.

    Attributes:
        pause_s: how long to wait before.
        is_upload: it only keeps items, so sending it twice does no harm.
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
        """Whether it may be sent again where nobody knows if it was received."""
        return self.body is None or self.is_upload


@dataclass(frozen=True)
class Reply:
    """What came back. The body of a stream was given to HttpCall.piece, line by line."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def error(self) -> EdgeVlmError | None:
        """The typed error, None for a success."""
        if self.status == 200:
            return None
        try:
            message = str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            message = self.body[:200].decode(errors="replace").strip()
        known = from_wire(message)
        if not isinstance(known, ServerError):
            return known
        kind = {400: InvalidInput, 404: NotFound, 502: Unavailable, 503: Unavailable, 504: Unavailable}.get(self.status)
        return kind(f"HTTP {self.status}: {known}") if kind else ServerError(f"HTTP {self.status}: {known}")

    def json(self) -> Any:
        """The body.

        Raises:
            EdgeVlmError: the reply is an error, or no JSON.
        """
        if (error := self.error()) is not None:
            raise error
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {self.body[:200]!r}") from error


Steps = Generator[Ask, Reply, None]


def advance(steps: Steps, reply: Reply | None = None) -> Ask | None:
    """What is to be sent next, None when the steps are over."""
    try:
        return next(steps) if reply is None else steps.send(reply)
    except StopIteration:
        return None
