"""A door that tells balancers whether to send requests here. It says no some time before the server stops.

Triton closes its ports as soon as it has to stop, with requests on their way. So the launcher first says here
that the server leaves, serves on for a while, and stops when no request comes any more.
"""

import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType

from contract.errors import ServerError
from serving.triton.health import is_ready


class Door(ThreadingHTTPServer):
    """Answers each in a thread, and bears a balancer that hangs up on an answer: haproxy reads its head alone."""

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Readiness:
    """Answers any GET inside its block: 200 while the server takes requests, 503 when it does not, or leaves.

    Args:
        http_url: host:port of the server.
        host, port: the address to listen on; port 0 chooses a free one.

    Raises:
        ServerError: the port cannot be used.
    """

    def __init__(self, http_url: str, host: str, port: int) -> None:
        readiness = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_open = not readiness.is_leaving and is_ready(http_url)
                body = b"ready\n" if is_open else b"leaving\n" if readiness.is_leaving else b"not ready\n"
                self.send_response(200 if is_open else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.is_leaving = False
        try:
            self._door = Door((host, port), Handler)
        except OSError as error:
            raise ServerError(f"ready port {port} of {host} cannot be used: {error.strerror}") from error
        self.port = self._door.server_port

    def __enter__(self) -> "Readiness":
        Thread(target=self._door.serve_forever, name="readiness", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._door.shutdown()
        self._door.server_close()

    def leave(self, drain_seconds: float) -> None:
        """Say no from now on; returns when balancers have had this long to notice and requests to end."""
        self.is_leaving = True
        time.sleep(drain_seconds)
