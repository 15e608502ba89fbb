"""Media from http and https, where an option of the device allows it.

Somebody else may have written the message and may name any URL. So Fetcher resolves the host's name, judges the
address, and connects to the very address that it judged; it does so again at every redirect. It uses no proxy of the
environment: a proxy would resolve the name itself.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from contract.errors import MediaError

MAX_REDIRECTS = 5
BLOCK = 1 << 16
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last 32 bits (RFC 6052)
NOT_PUBLIC = [  # IANA's registries call these special, Python's ipaddress calls them public
    ipaddress.ip_network(block)
    for block in (
        "192.88.99.0/24",  # relays from IPv6 to IPv4, which RFC 7526 deprecates
        "2620:4f:8000::/48",  # answers for private reverse names, AS112 (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
    )
]
UNICAST = ipaddress.IPv6Network("2000::/3")  # the addresses that IANA gives out; site-local ones lie outside


@dataclass(frozen=True)
class Fetcher:
    """Reads a URL, within limits.

    Attributes:
        max_bytes: the most bytes that a body may have.
        timeout_s: the most seconds that the whole fetch may take: name look-up, redirects and body.
        allowed_media_domains: the host names that Fetcher may ask; None allows any.
        allow_private: whether Fetcher may also ask loopback, private and link-local addresses.
    """

    max_bytes: int = 64 << 20
    timeout_s: float = 20.0
    allowed_media_domains: frozenset[str] | None = None
    allow_private: bool = False

    def __call__(self, url: str) -> bytes:
        """The body of a URL.

        Raises:
            MediaError: the URL has another scheme, the options do not allow its host or address, the server does not
                answer in time, answers with a status other than 200 or redirects too often, or the body is too large or
                cut short.
        """
        deadline = time.monotonic() + self.timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            try:
                body, url = self._get(url, deadline)
            except MediaError:
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                late = time.monotonic() >= deadline
                reason = f"it took longer than {self.timeout_s} s" if late else str(error) or type(error).__name__
                raise MediaError(f"{url} cannot be fetched: {reason}") from error
            if body is not None:
                return body
        raise MediaError(f"{url} redirects more than {MAX_REDIRECTS} times: give the address where the file lies")

    def _get(self, url: str, deadline: float) -> tuple[bytes | None, str]:
        """The body and its URL, or None and where the redirect leads."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise MediaError(f"{url} is not fetched: http:// or https:// with a host is expected")
        if self.allowed_media_domains is not None and parts.hostname not in self.allowed_media_domains:
            raise MediaError(
                f"{url} is not fetched: allowed_media_domains are {', '.join(sorted(self.allowed_media_domains)) or 'none'}"
            )
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.sock = self._connect(parts.hostname, port, parts.scheme == "https", deadline)
        try:
            with _watch(connection.sock, deadline):
                if isinstance(connection.sock, ssl.SSLSocket):
                    connection.sock.do_handshake()
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                host = parts.netloc.rpartition("@")[2]
                connection.request("GET", target, headers={"Host": host, "User-Agent": "edge-vlm", "Accept": "*/*"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308) and (place := answer.headers.get("Location")):
                    return None, urljoin(url, place)
                if answer.status != 200:
                    raise MediaError(
                        f"{url} answers {answer.status} {answer.reason}, 200 is expected: check the address"
                    )
                body = self._body(answer, url)
            _left(deadline)  # a body that the timer cut off must not pass for a whole one
            return body, url
        finally:
            connection.close()

    def _connect(self, host: str, port: int, is_tls: bool, deadline: float) -> socket.socket:
        found = _look_up(host, port, deadline)
        for *_, place in found:
            if not (self.allow_private or _is_public(str(place[0]))):
                raise MediaError(f"{host} is {place[0]}, which is not a public address: it is not fetched")
        failed = OSError(f"{host} has no address")
        for attempt in found:
            try:
                return _connected(attempt, host if is_tls else None, deadline)
            except OSError as error:  # the next address may answer
                failed = error
        raise failed

    def _body(self, answer: http.client.HTTPResponse, url: str) -> bytes:
        if (announced := answer.length) is not None and announced > self.max_bytes:
            raise MediaError(f"{url} has {announced} bytes, up to {self.max_bytes} are fetched")
        body = bytearray()
        while block := answer.read1(BLOCK):
            body += block
            if len(body) > self.max_bytes:
                raise MediaError(f"{url} has more than {self.max_bytes} bytes, which is the most that is fetched")
        if announced is not None and len(body) != announced:
            raise MediaError(f"{url} sent {len(body)} of {announced} bytes: the connection was cut")
        return bytes(body)


def _look_up(host: str, port: int, deadline: float) -> list[Any]:
    """What getaddrinfo says. It knows no deadline, so a thread asks it; nobody waits for a thread that is late."""
    answer = Future[list[Any]]()

    def ask() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="lookup", daemon=True).start()
    try:
        return answer.result(_left(deadline))
    except FutureTimeout as error:  # before Python 3.11 it is no OSError
        raise TimeoutError(f"no answer for the name {host}") from error


def _connected(attempt: tuple[Any, ...], tls_host: str | None, deadline: float) -> socket.socket:
    """A connection to one answer of getaddrinfo."""
    family, kind, protocol, _, place = attempt
    connected = socket.socket(family, kind, protocol)
    try:
        connected.settimeout(_left(deadline))
        connected.connect(place)
        if tls_host is None:
            return connected
        context = ssl.create_default_context()
        return context.wrap_socket(connected, server_hostname=tls_host, do_handshake_on_connect=False)
    except BaseException:
        connected.close()
        raise


def _is_public(text: str) -> bool:
    """Whether anybody can reach an address; where an IPv6 address carries an IPv4 one, the IPv4 one decides."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
        if address not in UNICAST:
            return False
    if any(address in block for block in NOT_PUBLIC):  # IPv4 in an IPv6 block, or the reverse, is False
        return False
    return address.is_global and not address.is_multicast


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError("it took too long")
    return left


@contextmanager
def _watch(connected: socket.socket, deadline: float) -> Iterator[None]:
    """End a connection at its deadline, however slowly bytes trickle in."""

    def end() -> None:
        with suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
