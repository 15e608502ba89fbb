"""By which names a request may address this server, and which web pages may send one.

A page of any site can make its own name lead to this machine (DNS rebinding), and can post forms to any address. The
browser tells both: the header Host has the name that it used, and Origin has the page that sends the request.
"""

import ipaddress
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.errors import shown
from edge_runtime.gateway.failures import Failure

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HOST = re.compile(r"(\[[^\[\]]*\]|[^\[\]:@]*)(:[0-9]*)?")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens at this address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name in a Host header, without its port, in lower case; an IPv6 address keeps its brackets.
    A malformed header has no name ("")."""
    parts = HOST.fullmatch(host.strip().lower())
    return parts[1] if parts else ""


def is_own_name(name: str) -> bool:
    """Whether a name is an IP address or a name of this machine: no other site's DNS can claim one of these."""
    own = socket.gethostname().lower()
    if name in ("localhost", own, own.partition(".")[0], f"{own.partition('.')[0]}.local"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class HostGuard:
    """ASGI middleware that passes on a request that addresses this server by an allowed name, and refuses others (400).

    Args:
        app: the application that gets the allowed requests.
        is_allowed: whether a name in the Host header is a name of this server.
        same_origin: also refuse requests that a page of another origin sends (403).
    """

    def __init__(self, app: ASGIApp, is_allowed: Callable[[str], bool], same_origin: bool = False) -> None:
        self._app, self._is_allowed, self._same_origin = app, is_allowed, same_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if (failure := self._failure(Headers(scope=scope))) is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        await failure.response()(scope, receive, send)

    def _failure(self, headers: Headers) -> Failure | None:
        host = headers.get("host", "")
        if not self._is_allowed(name_of(host)):
            return Failure(
                400,
                f"the Host header is {shown(host)}, which is no name of this server: use its address, or localhost",
                code="invalid_host",
            )
        origin = headers.get("origin")
        if self._same_origin and origin is not None and _netloc(origin) != host.strip().lower():
            return Failure(
                403, f"the page comes from {shown(origin)}, only this server's own may use it: open {host}",
                code="foreign_origin",
            )  # fmt: skip
        return None


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
