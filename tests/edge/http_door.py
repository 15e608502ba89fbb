"""A small real HTTP door in front of a real Triton: plain or TLS, it notes what passes and can be slammed."""

import asyncio
import re
import ssl
import threading
from pathlib import Path


class HttpDoor:
    """Passes bytes on, both ways. `seen` holds what the clients sent, one bytearray a connection."""

    def __init__(
        self, target: str, port: int = 0, pair: tuple[Path, Path] | None = None, guests: Path | None = None
    ) -> None:
        self.seen: list[bytearray] = []
        self._target, self.port, self._tls = target, port, None
        if pair is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(pair[1], pair[0])
            if guests is not None:
                self._tls.verify_mode = ssl.CERT_REQUIRED
                self._tls.load_verify_locations(guests)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> "HttpDoor":
        self._thread.start()
        opening = asyncio.start_server(self._pass, "127.0.0.1", self.port, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *args: object) -> None:
        self.slam()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def slam(self) -> None:
        """End every connection and stop listening."""

        async def end() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path.decode() for sent in self.seen for path in re.findall(rb"(?:GET|POST) (\S+) HTTP/1.1\r\n", sent)]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.split(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        sent = bytearray()
        self.seen.append(sent)
        both = {writer, inner_writer}
        self._writers |= both

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, note: bytearray | None) -> None:
            try:
                while block := await source.read(1 << 16):
                    if note is not None:
                        note += block
                    target.write(block)
                    await target.drain()
            except OSError:
                pass
            finally:
                for each in both:
                    each.close()

        await asyncio.gather(pump(reader, inner_writer, sent), pump(inner_reader, writer, None))
        self._writers -= both
