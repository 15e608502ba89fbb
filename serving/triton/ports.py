"""The ports of a server: it holds free ones until Triton takes them, and knows which addresses others reach."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from contract.errors import ServerError
from serving.triton.build import Ports

ANY_PORTS = Ports(0, 0, 0)


def is_this_machine(host: str) -> bool:
    """Whether only this machine reaches an address to listen on. Others reach any name but localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def free_ports(wanted: Ports, host: str) -> Iterator[Ports]:
    """Replace zeros by free ports. The block holds all ports, so that they differ and no other process gets them.

    Triton takes them meanwhile: a socket that may be reused and does not listen leaves its port to others.

    Raises:
        ServerError: a port that was asked for is in use.
    """
    with ExitStack() as stack:
        chosen = {}
        for protocol in ("http", "grpc", "metrics"):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just closed is free
            port = getattr(wanted, protocol)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ServerError(f"{protocol} port {port} of {host} cannot be used: {error.strerror}") from error
            chosen[protocol] = probe.getsockname()[1]
        yield Ports(**chosen)
