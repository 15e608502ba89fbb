"""One network connection for all requests of a gRPC client, and the calls on it that answer once.

A channel opens when the first request comes, carries any number of streams side by side, and gRPC closes its network
connection when nobody uses it for a while. Where a channel breaks, the streams on it run on, and the next request opens
a new one, because gRPC would wait before it connects again.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

from contract.errors import (
    EdgeVlmError,
    InvalidInput,
    MissingExtra,
    NotFound,
    ServerError,
    Unavailable,
    from_wire,
)
from contract.names import MODEL
from edge_runtime.clients.address import check_grpc
from edge_runtime.clients.connection import Connection
from edge_runtime.clients.http_steps import http_error
from edge_runtime.clients.idle import IDLE_S
from edge_runtime.clients.patience import FULL
from edge_runtime.clients.shared_regions import Region, retire

try:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
except ImportError as error:
    raise MissingExtra("the gRPC client", "client") from error

MAX_MESSAGE_BYTES = 2**31 - 1  # gRPC's own bound
OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.client_idle_timeout_ms", int(IDLE_S * 1000)),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel connects at once, whatever an older one waits for
]
REFUSED = "failed to connect to all addresses"  # gRPC's words where no connection came about
BEFORE_ADDRESS = re.compile(REFUSED + r"; last error: \w+: (ipv[46]:)?")
RESET = ("RST_STREAM", "Stream removed")  # gRPC's words, under several codes, where the connection broke
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Channel:
    """gRPC's channel to the server of a connection, and the server's methods."""

    def __init__(self, connection: Connection) -> None:
        if connection.tls is None:
            self._channel = grpc.insecure_channel(connection.url, OPTIONS)
        else:
            files = [None if name is None else Path(name).read_bytes() for name in connection.tls.names()]
            self._channel = grpc.secure_channel(connection.url, grpc.ssl_channel_credentials(*files), OPTIONS)
        self.server = GRPCInferenceServiceStub(self._channel)
        self.num_users = 0

    def close(self) -> None:
        """End every call on it."""
        self._channel.close()


class Channels:
    """The channel that new requests take, and older ones as long as a request uses them."""

    def __init__(self) -> None:
        self._current: Channel | None = None
        self._is_closed = False
        self._lock = Lock()

    def take(self, opened: Callable[[], Channel]) -> Channel:
        """The channel for one more request."""
        with self._lock:
            if self._current is None:
                self._current = opened()
            self._current.num_users += 1
            return self._current

    def give(self, channel: Channel, *, is_broken: bool) -> None:
        """Take a channel back from a request that is over."""
        with self._lock:
            channel.num_users -= 1
            if channel is self._current and (is_broken or self._is_closed):
                self._current = None
            is_left = channel is not self._current and not channel.num_users
        if is_left:
            channel.close()

    def close(self) -> None:
        """Close the channel as soon as no request uses it."""
        with self._lock:
            self._is_closed = True
            channel = self._current
            is_left = channel is not None and not channel.num_users
            if is_left:
                self._current = None
        if channel is not None and is_left:
            channel.close()


@dataclass(eq=False)
class GrpcConnection(Connection):
    """A way to Triton's gRPC port; see Connection for the arguments.

    Raises:
        InvalidInput: as Connection, or as check_grpc.
    """

    url: str = "127.0.0.1:8001"
    channels: Channels = field(default_factory=Channels, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_grpc(self.url)
        finalize(self, self.channels.close)  # a client that nobody closes leaves nothing open


def metadata(connection: Connection) -> list[tuple[str, str]]:
    """The headers as gRPC wants them: names in lower case."""
    return [(name.lower(), value) for name, value in connection.headers.items()]


def typed(message: str, code: "grpc.StatusCode | None" = None) -> EdgeVlmError:
    """An error of this package: by the code in the text, else by gRPC's own."""
    failure = from_wire(message)
    if not isinstance(failure, ServerError):
        return failure
    if (found := re.search(r"Received http2 header with status: (\d+)", message)) is not None:
        return http_error(int(found[1]), "a proxy on the way answered this in place of the server")
    if FULL in message or any(words in message for words in RESET):
        return Unavailable(f"{message}: the server has no room, or the connection broke: try again later")
    if code in AWAY:
        return Unavailable(
            f"{BEFORE_ADDRESS.sub('', message)}: is Triton running at this address, with gRPC on this port?"
        )
    kinds = {grpc.StatusCode.NOT_FOUND: NotFound, grpc.StatusCode.INVALID_ARGUMENT: InvalidInput}
    return kinds.get(code, ServerError)(str(failure))


def ask(connection: GrpcConnection, method: str, request: Any, timeout_s: float | None = None) -> Any:
    """The answer of a method that answers once.

    Raises:
        NotFound, InvalidInput, ServerError: the server says so.
        Unavailable: the server says so, or nobody answers.
    """
    channel, is_broken = connection.channels.take(lambda: Channel(connection)), False
    try:
        call = getattr(channel.server, method)
        return call(request, metadata=metadata(connection), timeout=timeout_s or connection.timeout_s)
    except grpc.RpcError as error:
        is_broken = error.code() in AWAY
        raise typed(error.details() or "", error.code()) from error
    finally:
        connection.channels.give(channel, is_broken=is_broken)


def server(connection: GrpcConnection) -> tuple[str, str]:
    """Name and version of the server."""
    found = ask(connection, "ServerMetadata", messages.ServerMetadataRequest())
    return found.name, found.version


def parameters(connection: GrpcConnection, model: str = MODEL, timeout_s: float | None = None) -> dict[str, str]:
    """What the served model says of itself."""
    config = ask(connection, "ModelConfig", messages.ModelConfigRequest(name=model), timeout_s).config
    return {name: value.string_value for name, value in config.parameters.items()}


def register(connection: GrpcConnection, region: Region, timeout_s: float) -> None:
    """Tell the server about a region of shared memory."""
    request = messages.SystemSharedMemoryRegisterRequest(name=region.name, key=region.key, byte_size=region.num_bytes)
    ask(connection, "SystemSharedMemoryRegister", request, timeout_s)
    region.is_registered = True


def unregister(connection: GrpcConnection, name: str) -> None:
    """Tell the server to let go of a region."""
    ask(connection, "SystemSharedMemoryUnregister", messages.SystemSharedMemoryUnregisterRequest(name=name))


def close(connection: GrpcConnection) -> None:
    """Give back what the connection holds: shared memory, if any, and the network connection."""
    for region in connection.regions.close():
        retire(region, lambda name: unregister(connection, name))
    connection.channels.close()
