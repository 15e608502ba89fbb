"""Answers over HTTP, in a loop that blocks. The request itself is the HttpCall that the asyncio client uses, too."""

import http.client
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from weakref import finalize

from contract.errors import EdgeVlmError, Unavailable
from contract.names import MODEL
from contract.sampling import Sampling
from edge_runtime.clients.closing import Blocking
from edge_runtime.clients.connection import Connection
from edge_runtime.clients.http_address import HttpAddress
from edge_runtime.clients.http_call import HttpCall
from edge_runtime.clients.http_steps import SHORTEST_S, Ask, Reply, Steps, advance
from edge_runtime.clients.idle import Idle
from edge_runtime.request import Delta, Request


@dataclass(eq=False)
class HttpClient(Connection, Blocking):
    """A connection to Triton's HTTP port; see Connection for the arguments. Safe to share between threads."""

    url: str = "127.0.0.1:8000"
    idle: Idle[http.client.HTTPConnection] = field(default_factory=Idle, init=False, repr=False)
    _address: HttpAddress = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._address = HttpAddress.of(self)
        finalize(self, self.idle.drop)  # a client that nobody closes leaves nothing open

    def close(self) -> None:
        """Give back what the client holds between requests: idle connections, and shared memory where that is on."""
        call = HttpCall(self)
        try:
            with suppress(Unavailable):  # a server that is away holds nothing
                self._done(call, call.close())
        finally:
            self.idle.close()

    def server(self) -> tuple[str, str]:
        """As GrpcClient.server."""
        call = HttpCall(self)
        self._done(call, call.server())
        name, version = call.value
        return name, version

    def parameters(self, model: str = MODEL) -> dict[str, str]:
        """As GrpcClient.parameters."""
        call = HttpCall(self)
        self._done(call, call.parameters(model))
        return dict(call.value)

    def infer(self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None) -> Delta:
        """Send a request and wait for its whole answer.

        Triton does not notice when such a client leaves, so give a deadline: it travels with the request.

        Raises:
            As stream.
        """
        call = HttpCall(self, deadline_s)
        try:
            self._done(call, call.infer(request, sampling or Sampling()))
        finally:
            self._done(call, call.release())
        delta: Delta = call.value
        return delta

    def stream(
        self, request: Request, sampling: Sampling | None = None, *, deadline_s: float | None = None
    ) -> Generator[Delta, None, None]:
        """Upload what the server does not hold, ask, and yield the answer piece by piece.

        A program that closes the iterator closes the connection; Triton notices with the next piece that it writes.

        Args and Raises:
            As GrpcClient.stream; ServerError also where the server keeps no embeddings.
        """
        call = HttpCall(self, deadline_s)
        try:
            yield from self._run(call, call.stream(request, sampling or Sampling()))
            if call.whole is not None:
                yield call.whole
        finally:
            self._done(call, call.release())

    def _done(self, call: HttpCall, steps: Steps) -> None:
        for _ in self._run(call, steps):
            pass

    def _run(self, call: HttpCall, steps: Steps) -> Generator[Delta, None, None]:
        """Send what the steps ask for, one after the other, until they are over."""
        ask = advance(steps)
        while ask is not None:
            time.sleep(ask.pause_s)
            with self._sent(call, ask) as (sock, response):
                if ask.is_stream and response.status == 200:
                    while line := response.readline():
                        if (delta := call.piece(line)) is not None:
                            yield delta
                        _limit(sock, call)
                    reply = Reply(200)
                else:
                    reply = Reply(response.status, dict(response.getheaders()), response.read())
            ask = advance(steps, reply)

    @contextmanager
    def _sent(self, call: HttpCall, ask: Ask) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        connection = response = None
        try:
            connection, sock, response = self._answered(call, ask)
            yield sock, response
        except EdgeVlmError:
            raise
        except TimeoutError:
            raise call.patience.late() from None
        except (OSError, http.client.HTTPException) as error:
            raise call.broken(error, is_http=type(error) is not http.client.BadStatusLine) from error
        finally:
            if connection is not None and response is not None:
                if response.isclosed() and not response.will_close:
                    self.idle.give(connection)
                else:  # the server ends it, or the reader left early
                    response.close()
                    connection.close()

    def _answered(
        self, call: HttpCall, ask: Ask
    ) -> tuple[http.client.HTTPConnection, socket.socket, http.client.HTTPResponse]:
        """Send, and read the head of the answer.

        A server may end an idle connection in the moment in which the client uses it again; the client then repeats a
        request that it may repeat.
        """
        kept = self._kept()
        connection = kept or self._connected(call)
        sock: socket.socket = connection.sock
        try:
            _limit(sock, call)
            connection.request(ask.method, self._address.prefix + ask.path, ask.body, {**self.headers, **ask.headers})
            return connection, sock, connection.getresponse()
        except BaseException as error:
            connection.close()
            if kept is None or not ask.may_repeat or not isinstance(error, ConnectionError):
                raise
        self.idle.drop()
        return self._answered(call, ask)

    def _kept(self) -> http.client.HTTPConnection | None:
        """An idle connection that the server has not ended."""
        while (connection := self.idle.take()) is not None:
            if not wait([connection.sock], 0):  # readable without a question: the server has ended it
                return connection
            connection.close()
        return None

    def _connected(self, call: HttpCall) -> http.client.HTTPConnection:
        where, tls = self._address, self._address.tls
        while True:
            wait_s = max(call.patience.wait_s, SHORTEST_S)
            connection = (
                http.client.HTTPConnection(where.host, where.port, timeout=wait_s)
                if tls is None
                else http.client.HTTPSConnection(where.host, where.port, timeout=wait_s, context=tls)
            )
            try:
                connection.connect()
                return connection
            except TimeoutError:
                raise call.patience.late() from None
            except ssl.SSLError as error:
                raise call.broken(error) from error
            except OSError as error:
                time.sleep(call.unreachable(error))


def _limit(sock: socket.socket, call: HttpCall) -> None:
    """Bound the next wait on a socket."""
    if (wait_s := call.patience.wait_s) <= 0:
        raise call.patience.late()
    sock.settimeout(max(wait_s, SHORTEST_S))
