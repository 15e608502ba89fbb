"""A small real gRPC door in front of a real Triton: plain or TLS, it notes the headers and can be slammed."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a self-signed certificate for 127.0.0.1."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    key, chain = folder / "key.pem", folder / "chain.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*make, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return key, chain


class Door(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes every call on as bytes; `seen` holds the metadata of each. `guests` is whom it lets in, by certificate."""

    def __init__(
        self, target: str, port: int = 0, pair: tuple[Path, Path] | None = None, guests: Path | None = None
    ) -> None:
        self.seen: list[dict[str, Any]] = []
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=[("grpc.so_reuseport", 0)])
        address = f"127.0.0.1:{port}"
        if pair is None:
            self.port = self._server.add_insecure_port(address)
        else:
            keys = grpc.ssl_server_credentials(
                [(pair[0].read_bytes(), pair[1].read_bytes())],
                root_certificates=guests.read_bytes() if guests else None,
                require_client_auth=guests is not None,
            )
            self.port = self._server.add_secure_port(address, keys)
        self.url = f"127.0.0.1:{self.port}"

    def __enter__(self) -> "Door":
        self._server.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.slam()
        self._channel.close()

    def slam(self) -> None:
        """End every call and stop listening."""
        self._server.stop(0).wait(10)

    def service(self, details: Any) -> Any:
        """Called by grpc for each call."""
        self.seen.append(dict(details.invocation_metadata))

        def passed(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            call = self._channel.stream_stream(details.method)(requests)
            context.add_callback(call.cancel)
            yield from call

        return grpc.stream_stream_rpc_method_handler(passed)
