"""The gateway's own web server: uvicorn, with a line that says where it listens."""

import socket
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from contract.errors import InvalidInput
from edge_runtime.gateway.connection import PatientProtocol

STOP_S = 10  # answers under way may take this long when the gateway stops
BACKLOG = 256


class _Server(uvicorn.Server):
    """Prints where it listens once it heeds Ctrl-C: asyncio can lose a Ctrl-C that comes while it starts."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._ready, flush=True)


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    tls_files: tuple[str | None, str | None] = (None, None),
    ready: str = "{url}",
    trusted_proxies: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        host: the address at which the server listens.
        port: 0 takes a free one; the line on standard output says which.
        tls_files: key and certificate in PEM form, both or none.
        ready: the line that the server prints once it takes connections; the address replaces `{url}`.
        trusted_proxies: addresses and networks of proxies whose X-Forwarded-For names the client.

    Raises:
        InvalidInput: the server cannot listen at the address, or the TLS files are wrong.
    """
    key, certificate = tls_files
    if (key is None) != (certificate is None):
        raise InvalidInput(f"ssl_keyfile is {key} and ssl_certfile is {certificate}: give both or none")
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        server_header=False,
        # a client can write any header: uvicorn believes only the named proxies
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        ssl_keyfile=key,
        ssl_certfile=certificate,
        timeout_graceful_shutdown=STOP_S,
        backlog=BACKLOG,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput(f"{key} and {certificate} are no TLS key and certificate: {error}") from error
    with _listening(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        url = f"http{'s' if key else ''}://{shown}:{listening.getsockname()[1]}/v1"
        _Server(config, ready.format(url=url)).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # name the protocol: asyncio sets TCP_NODELAY on no other socket, and events would wait 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InvalidInput(
            f"the gateway cannot listen at {host}:{port}: {error.strerror}; choose another port, or a host of this machine"
        ) from error
    return listening
