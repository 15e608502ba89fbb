"""A server's address: host:port of Triton's gRPC, or for HTTP host:port or http(s)://host:port/prefix."""

import re
from string import whitespace
from urllib.parse import SplitResult, urlsplit

from contract.errors import InvalidInput, shown

EXPECTED = "host:port, http://host:port or https://host is expected"
# names that gRPC resolves itself, but no server that is called so: dns:8001
GRPC_NAME = re.compile(r"(unix|unix-abstract|vsock|dns|ipv4|ipv6|xds):(?!\d+$)\S+")


def is_url(address: str) -> bool:
    """Whether an address is an http:// or https:// URL."""
    return address.startswith(("http://", "https://"))


def split(address: str, scheme: str = "http") -> SplitResult:
    """The parts of an address; `scheme` is that of an address without one.

    Raises:
        InvalidInput: the address has no host or no valid port, names a user, holds a space, or is a URL of another scheme.
    """
    wrong = InvalidInput(f"url is {shown(address)}, {EXPECTED}")
    try:
        parts = urlsplit(address if "://" in address else f"{scheme}://{address}")
        host, _ = parts.hostname, parts.port
    except ValueError:  # a port that is no number, or brackets around what is no address
        raise wrong from None
    if parts.scheme not in ("http", "https") or not host or parts.username or set(address) & set(whitespace):
        raise wrong
    return parts


def check_grpc(address: str) -> None:
    """Check an address of Triton's gRPC; without a port gRPC would take 443.

    Raises:
        InvalidInput: the address has no port, is a URL of HTTP, or `split` refuses it.
    """
    if GRPC_NAME.fullmatch(address):
        return
    if is_url(address) or split(address).port is None:
        raise InvalidInput(f"url is {shown(address)}, the host:port of Triton's gRPC is expected (its port is 8001)")
