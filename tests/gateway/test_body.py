"""What bodies hold: bytes that came, never announced ones, within a rate, a client's share and a sum; all of it comes back."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from edge_runtime.gateway import body as bodies
from edge_runtime.gateway.body import Bodies, Held
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings

KB = 1 << 10
SMALL = Settings(max_body_bytes=64 * KB, max_pending_bytes=320 * KB, max_concurrency=8)  # one client holds up to 160 KB


def coming(*chunks: bytes, pause_s: float = 0.0, is_whole: bool = True) -> Callable[[], Awaitable[Any]]:
    """A client that sends these pieces, and says nothing afterwards."""
    left: Iterator[tuple[int, bytes]] = iter(enumerate(chunks, 1))

    async def receive() -> Any:
        await asyncio.sleep(pause_s)
        for number, chunk in left:
            return {"type": "http.request", "body": chunk, "more_body": not (is_whole and number == len(chunks))}
        await asyncio.sleep(3600)

    return receive


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


async def read(held: Bodies, caller: bytes, *chunks: bytes, **headers: str) -> tuple[bytearray, Held]:
    return await held.read(scope(**headers), coming(*chunks), caller)


def is_empty(held: Bodies) -> bool:
    return held.num_bytes == 0 and not held.by_caller


def test_announced_bytes_count_for_nothing() -> None:
    async def run() -> None:
        held = Bodies(SMALL)
        waiting = asyncio.ensure_future(
            held.read(scope(content_length=str(64 * KB)), coming(b"{", is_whole=False), b"a")
        )
        while not held.num_bytes:
            await asyncio.sleep(0)
        assert (held.num_bytes, dict(held.by_caller)) == (1, {b"a": 1})
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert is_empty(held)

    asyncio.run(run())


def test_a_client_and_all_clients_have_a_bound() -> None:
    async def run() -> None:
        held, kept = Bodies(SMALL), []
        for _ in range(2):
            kept.append((await read(held, b"a", b"x" * 64 * KB))[1])
        with pytest.raises(Failure, match="most of one client") as one:
            await read(held, b"a", b"x" * 64 * KB)
        assert (one.value.status, held.num_bytes) == (429, 128 * KB)
        for _ in range(2):
            kept.append((await read(held, b"b", b"x" * 64 * KB))[1])
        kept.append((await read(held, b"c", b"x" * 64 * KB))[1])
        with pytest.raises(Failure, match="--max-pending-bytes") as all_:
            await read(held, b"d", b"x")
        assert (all_.value.status, held.num_bytes) == (503, 320 * KB)
        kept.pop().release()
        kept.append((await read(held, b"d", b"x"))[1])
        for one_held in kept:
            one_held.release()
        assert is_empty(held)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("chunks", "headers", "status"),
    [
        ((b"x" * 65 * KB,), {}, 413),
        ((b"x",), {"content_length": str(65 * KB)}, 413),
        ((b"x",), {"content_length": "1", "transfer_encoding": "chunked"}, 400),
        ((b"x",), {"content_encoding": "br"}, 415),
        ((b"x",), {"content_encoding": "gzip"}, 400),
        ((gzip.compress(b" " * 65 * KB),), {"content_encoding": "gzip"}, 413),
        ((gzip.compress(b"{}")[:-1],), {"content_encoding": "gzip"}, 400),
    ],
)
def test_a_refused_body_holds_nothing(chunks: tuple[bytes, ...], headers: dict[str, str], status: int) -> None:
    held = Bodies(SMALL)
    for _ in range(20):  # what stayed would add up
        with pytest.raises(Failure) as refused:
            asyncio.run(read(held, b"a", *chunks, **headers))
        assert refused.value.status == status
    assert is_empty(held)


def test_a_packed_body_holds_what_it_unpacks_to() -> None:
    held = Bodies(SMALL)
    found, taken = asyncio.run(read(held, b"a", gzip.compress(b"x" * 60 * KB), content_encoding="gzip"))
    assert (len(found), held.num_bytes) == (60 * KB, 60 * KB)
    taken.release()
    assert is_empty(held)


def test_a_body_comes_at_a_least_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then is given up long before the time of a whole body is over."""
    monkeypatch.setattr(bodies, "GRACE_S", 0.3)

    async def run() -> None:
        held = Bodies(SMALL)
        with pytest.raises(Failure, match="at least 1024 a second") as slow:
            await asyncio.wait_for(
                held.read(scope(), coming(*[b"x"] * 100, pause_s=0.1, is_whole=False), b"a"), bodies.BODY_S / 2
            )
        assert slow.value.status == 408
        assert is_empty(held)

    asyncio.run(run())
