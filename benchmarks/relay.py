"""A TCP relay that stands for a long way: it counts connections and delays what passes, in both directions.

It loses nothing and slows nothing otherwise. A new connection takes the round trip of TCP's handshake: what the client
sends at once leaves one round trip later, and the server hears of the connection half a round trip after that.
Bytes of one direction stay in order. There is no slow start of TCP (the machine's own loopback carries the bytes), but
the flow control of HTTP/2, which the two ends do themselves.
"""

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

BLOCK_BYTES = 1 << 16


class Relay:
    """`with Relay("127.0.0.1:8001", 0.08) as relay:` listens at relay.url inside the block.

    Args:
        target: host:port of the server.
        round_trip_s: seconds from a client's byte to the byte that answers it, beside the server's own time.
        pair: key and certificate chain (PEM files): the relay ends TLS itself and speaks plain text to the server, as a
            balancer does. The relay offers HTTP/2 for gRPC.

    Attributes:
        num_connections: connections that clients have opened so far.
        num_open: connections open now.
    """

    def __init__(self, target: str, round_trip_s: float = 0.0, pair: tuple[Path, Path] | None = None) -> None:
        self._target, self._round_trip_s = target, round_trip_s
        self._tls: ssl.SSLContext | None = None
        if pair is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pair[1], pair[0])
            self._tls.set_alpn_protocols(["h2", "http/1.1"])
        self.num_connections = self.num_open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> "Relay":
        self._thread.start()
        target = self._target
        if self._tls is not None:  # two doors: TLS ends behind the long way
            inner = self._run(asyncio.start_server(self._end_tls, "127.0.0.1", 0, ssl=self._tls))
            self._servers.append(inner)
            target = f"127.0.0.1:{inner.sockets[0].getsockname()[1]}"
        self._way = target
        outer = self._run(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self._servers.append(outer)
        self.url = f"127.0.0.1:{outer.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *args: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """End every open connection, and go on listening."""

        async def abort() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._run(abort())

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self.num_open += 1
        try:
            await self._join(reader, writer, self._way, self._round_trip_s)
        finally:
            self.num_open -= 1

    async def _end_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._join(reader, writer, self._target, 0.0)

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, round_trip_s: float
    ) -> None:
        """Open the other half, and move bytes both ways until both ends are done."""
        loop = asyncio.get_running_loop()
        begun, one_way_s = loop.time(), round_trip_s / 2
        away: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        back: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._writers.add(writer)
        reading = asyncio.create_task(_read(reader, away, begun + round_trip_s, one_way_s))
        other: asyncio.StreamWriter | None = None
        try:
            await asyncio.sleep(begun + round_trip_s + one_way_s - loop.time() if round_trip_s else 0)
            host, port = target.split(":")
            other_reader, other = await asyncio.open_connection(host, int(port))
            self._writers.add(other)
            await asyncio.gather(
                reading, _read(other_reader, back, 0.0, one_way_s), _write(other, away), _write(writer, back)
            )
        except (OSError, asyncio.CancelledError):  # a cut, or the end of the relay
            pass
        finally:
            reading.cancel()
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.close()


async def _read(
    reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], not_before: float, one_way_s: float
) -> None:
    """Note what comes and when it is due on the other side; an empty piece stands for the end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            block = await reader.read(BLOCK_BYTES)
        except OSError:
            block = b""
        queue.put_nowait((max(loop.time(), not_before) + one_way_s, block))
        if not block:
            return


async def _write(writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, block = await queue.get()
        if (wait_s := due - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        if not block:
            if writer.can_write_eof():
                writer.write_eof()
            else:
                writer.close()
            return
        writer.write(block)
        await writer.drain()
