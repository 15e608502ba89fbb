"""The blocking and the asyncio client against a real Triton: same answers, deadlines, retries, cancels, TLS, headers."""

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contract.errors import DeadlineExceeded, EdgeVlmError, InvalidInput, Unavailable
from edge_runtime import AsyncGrpcClient, Delta, GrpcClient, Pipeline, Request, Sampling, Tls
from serving.launcher import TritonServer
from tests.edge.grpc_door import Door, certificate
from tiny_model.scenes import shapes_scene

LONG = Sampling(max_tokens=3000, ignore_eos=True)
SHORT = Sampling(max_tokens=12)
Ask = Callable[..., list[Delta]]


@pytest.fixture(scope="module")
def request_(pipeline: Pipeline) -> Request:
    return pipeline.ask(shapes_scene(Random(5), 160, 128, 3).image, "Describe the image.")


def blocking(
    url: str, request: Request, sampling: Sampling, *, deadline_s: float | None = None, **how: Any
) -> list[Delta]:
    with GrpcClient(url, **how) as client:
        return list(client.stream(request, sampling, deadline_s=deadline_s))


def awaited(
    url: str, request: Request, sampling: Sampling, *, deadline_s: float | None = None, **how: Any
) -> list[Delta]:
    async def collect() -> list[Delta]:
        client = AsyncGrpcClient(url, **how)
        return [delta async for delta in client.stream(request, sampling, deadline_s=deadline_s)]

    return asyncio.run(collect())


both = pytest.mark.parametrize("ask", [blocking, awaited])


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def counted(server: TritonServer, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as answer:
        found = re.findall(rf"^edge_vlm_{name}\S* (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_both_give_the_same_pieces(server: TritonServer, request_: Request) -> None:
    ours, other = (ask(server.grpc_url, request_, SHORT) for ask in (blocking, awaited))
    assert ours == other
    assert len(ours) > 3
    assert ours[-1].finish_reason in ("stop", "length")


def test_many_at_once_in_one_loop(server: TritonServer, pipeline: Pipeline) -> None:
    random = Random(8)
    requests = [pipeline.ask(shapes_scene(random, 96, 96, 2).image, "What do you see?") for _ in range(6)]

    async def all_of_them() -> list[str]:
        client = AsyncGrpcClient(server.grpc_url)

        async def one(request: Request) -> str:
            return text([delta async for delta in client.stream(request, SHORT)])

        return await asyncio.gather(*[one(request) for request in requests])

    assert asyncio.run(all_of_them()) == [text(blocking(server.grpc_url, request, SHORT)) for request in requests]


@both
def test_bad_input_is_typed(server: TritonServer, request_: Request, ask: Ask) -> None:
    with pytest.raises(InvalidInput, match="encoder_fingerprint"):
        ask(server.grpc_url, replace(request_, encoder_fingerprint="0" * 32), SHORT)


@both
def test_a_deadline_ends_the_answer_here_and_there(server: TritonServer, request_: Request, ask: Ask) -> None:
    before, started = counted(server, "cancelled_requests_total"), time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"longer than its deadline of 0\.4 s"):
        ask(server.grpc_url, request_, LONG, deadline_s=0.4)
    assert time.monotonic() - started < 3
    until(lambda: counted(server, "cancelled_requests_total") == before + 1)


def test_leaving_the_loop_cancels(server: TritonServer, request_: Request) -> None:
    before = counted(server, "cancelled_requests_total")
    with GrpcClient(server.grpc_url) as client:
        pieces = client.stream(request_, LONG)
        next(pieces)
        pieces.close()
    until(lambda: counted(server, "cancelled_requests_total") == before + 1)


def test_cancelling_the_task_cancels(server: TritonServer, request_: Request) -> None:
    before = counted(server, "cancelled_requests_total")

    async def leave() -> None:
        came = asyncio.Event()

        async def read() -> None:
            async for _ in AsyncGrpcClient(server.grpc_url).stream(request_, LONG):
                came.set()

        task = asyncio.create_task(read())
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    until(lambda: counted(server, "cancelled_requests_total") == before + 1)


@both
def test_it_waits_for_a_server_that_starts(server: TritonServer, request_: Request, ask: Ask) -> None:
    port, late = free_port(), list[Door]()
    opening = threading.Timer(1.0, lambda: late.append(Door(server.grpc_url, port).__enter__()))
    opening.start()
    try:
        deltas = ask(f"127.0.0.1:{port}", request_, SHORT, retry_s=15)
    finally:
        opening.join()
        late[0].__exit__()
    assert text(deltas) == text(blocking(server.grpc_url, request_, SHORT))
    assert len(late[0].seen) == 1


@both
def test_without_retries_nobody_there_is_said_at_once(request_: Request, ask: Ask) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is Triton running"):
        ask(f"127.0.0.1:{free_port()}", request_, SHORT)
    assert time.monotonic() - started < 5


@both
def test_retries_end(request_: Request, ask: Ask) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is Triton running"):
        ask(f"127.0.0.1:{free_port()}", request_, SHORT, retry_s=0.8)
    assert 0.2 < time.monotonic() - started < 5


@both
def test_a_lost_connection_is_said_and_nothing_is_sent_twice(server: TritonServer, request_: Request, ask: Ask) -> None:
    with Door(server.grpc_url) as door:
        threading.Timer(0.5, door.slam).start()
        with pytest.raises(EdgeVlmError, match=r"was lost after \d+ pieces"):
            ask(door.url, request_, LONG, retry_s=30)
        assert len(door.seen) == 1
    until(lambda: counted(server, "active_requests") == 0)


@both
def test_tls_and_headers_reach_the_server(server: TritonServer, request_: Request, ask: Ask, tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    with Door(server.grpc_url, pair=pair) as door:
        deltas = ask(door.url, request_, SHORT, tls=Tls(pair[1]), headers={"Authorization": "Bearer 7"})
        assert door.seen[0]["authorization"] == "Bearer 7"
        assert text(deltas) == text(blocking(server.grpc_url, request_, SHORT))
        with pytest.raises(Unavailable):  # a certificate nobody vouches for
            ask(door.url, request_, SHORT, tls=Tls(), timeout_s=10)
        assert len(door.seen) == 1
    with pytest.raises(InvalidInput, match="cannot be read"):
        ask(door.url, request_, SHORT, tls=Tls(tmp_path / "none.pem"))


def test_a_server_may_ask_who_we_are(server: TritonServer, request_: Request, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    pair, ours = certificate(tmp_path), certificate(tmp_path / "ours")
    with Door(server.grpc_url, pair=pair, guests=ours[1]) as door:
        deltas = blocking(door.url, request_, SHORT, tls=Tls(pair[1], private_key=ours[0], certificate_chain=ours[1]))
        assert deltas[-1].finish_reason in ("stop", "length")
        with pytest.raises(Unavailable):
            blocking(door.url, request_, SHORT, tls=Tls(pair[1]), timeout_s=10)
        assert len(door.seen) == 1
