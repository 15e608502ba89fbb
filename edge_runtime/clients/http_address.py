"""How a client reaches an HTTP server: the parts of its address, and its certificates."""

import ssl
from dataclasses import dataclass

from contract.errors import InvalidInput
from edge_runtime.clients.address import split
from edge_runtime.clients.connection import Connection


@dataclass(frozen=True)
class HttpAddress:
    """The parts of http(s)://host:port/prefix. tls is None for plain text."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, connection: Connection) -> "HttpAddress":
        """The address of a connection; this call loads its certificates.

        Raises:
            InvalidInput: the URL has another form, or TLS cannot use a certificate.
        """
        tls = connection.tls
        parts = split(connection.url, "http" if tls is None else "https")
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            if tls is not None:
                raise InvalidInput(f"url is {connection.url!r} and tls is given: write https://")
            return cls(host, port or 80, parts.path.rstrip("/"), None)
        root, key, chain = tls.names() if tls is not None else (None, None, None)
        try:
            context = ssl.create_default_context(cafile=root)
            if chain is not None:
                context.load_cert_chain(chain, key)
        except ssl.SSLError as error:
            raise InvalidInput(f"{root or chain} holds no certificate that can be used: {error}") from error
        return cls(host, port or 443, parts.path.rstrip("/"), context)

    @property
    def base_url(self) -> str:
        """The URL before the path of a request, prefix included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}{self.prefix}"
