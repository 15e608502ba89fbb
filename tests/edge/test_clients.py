"""Four clients against a real Triton: same answers, deadlines, retries, cancels, lost connections, TLS, headers."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contract.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from edge_runtime import GrpcClient, HttpClient, Pipeline, Request, Sampling, Tls
from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import certificate
from tests.edge.ways import WAYS, Way, every_way, free_port, text
from tests.scrape import at_rest
from tiny_model.scenes import shapes_scene

LONG = Sampling(max_tokens=3000, ignore_eos=True)
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def request_(pipeline: Pipeline) -> Request:
    return pipeline.ask(shapes_scene(Random(5), 160, 128, 3).image, "Describe the image.")


@pytest.fixture(scope="module")
def answer(server: TritonServer, request_: Request) -> str:
    """What every client must say."""
    return text(WAYS["grpc"].ask(server.grpc_url, request_, sampling=SHORT))


def test_all_give_the_same_answer_in_pieces(server: TritonServer, request_: Request) -> None:
    """How many pieces there are is the server's affair: tokens that wait for a busy machine share one."""
    said = [way.ask(way.url(server), request_, sampling=SHORT) for way in WAYS.values()]
    assert min(len(deltas) for deltas in said) > 1
    assert len({text(deltas) for deltas in said}) == 1
    assert len({tuple(token for delta in deltas for token in delta.token_ids) for deltas in said}) == 1
    assert len({deltas[-1].finish_reason for deltas in said}) == 1
    assert said[0][-1].finish_reason in ("stop", "length")
    assert not any(delta.finish_reason for deltas in said for delta in deltas[:-1])
    assert {delta.num_input_tokens for deltas in said for delta in deltas} == {len(request_.input_ids)}


@pytest.mark.parametrize("name", ["grpc asyncio", "http asyncio"])
def test_many_at_once_in_one_loop(server: TritonServer, pipeline: Pipeline, name: str) -> None:
    random, way = Random(8), WAYS[name]
    requests = [pipeline.ask(shapes_scene(random, 96, 96, 2).image, "What do you see?") for _ in range(6)]

    async def all_of_them() -> list[str]:
        client = way.kind(way.url(server))

        async def one(request: Request) -> str:
            return text([delta async for delta in client.stream(request, SHORT)])

        return await asyncio.gather(*[one(request) for request in requests])

    alone = WAYS["grpc"].ask(server.grpc_url, *requests, sampling=SHORT)
    assert asyncio.run(all_of_them()) == [text(deltas) for deltas in alone]


@every_way
def test_log_probabilities_come_with_their_tokens(server: TritonServer, request_: Request, way: Way) -> None:
    deltas = way.ask(way.url(server), request_, sampling=Sampling(max_tokens=8, logprobs=2))
    tokens = [token for delta in deltas for token in delta.token_ids]
    told = [entry for delta in deltas for entry in delta.logprobs]
    assert [entry["id"] for entry in told] == tokens
    for entry in told:  # greedy: the likeliest is what was chosen
        assert entry["top"][0]["id"] == entry["id"]
        assert entry["logprob"] == pytest.approx(entry["top"][0]["logprob"])
        assert len(entry["top"]) == 2


@every_way
def test_the_server_says_what_it_serves(server: TritonServer, pipeline: Pipeline, way: Way) -> None:
    with way.open(way.url(server)) as session:
        name, version = session.call("server")
        assert (name, version[0]) == ("triton", "2")
        fingerprint = session.call("parameters")["encoder_fingerprint"]
        assert fingerprint == pipeline.encoder.bundle.manifest.card.encoder_fingerprint
        with pytest.raises((NotFound, InvalidInput), match="no_such_model"):
            session.call("parameters", "no_such_model")


@every_way
def test_bad_input_is_typed(server: TritonServer, request_: Request, way: Way) -> None:
    with pytest.raises(InvalidInput, match="encoder_fingerprint"):
        way.ask(way.url(server), replace(request_, encoder_fingerprint="0" * 32), sampling=SHORT)
    with pytest.raises(InvalidInput, match=r"max_tokens is 1048576, up to \d+ is allowed"):
        way.ask(way.url(server), request_, sampling=Sampling(max_tokens=1 << 20))


@every_way
def test_a_deadline_ends_the_answer_here_and_there(server: TritonServer, request_: Request, way: Way) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    with pytest.raises(DeadlineExceeded, match=r"longer than its deadline of 0\.4 s"):
        way.ask(way.url(server), request_, sampling=LONG, deadline_s=0.4)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_a_deadline_ends_infer_on_the_server(server: TritonServer, request_: Request) -> None:
    """Triton does not notice when an HTTP client leaves infer, so the deadline travels."""
    before = at_rest(server)["cancelled_requests_total"]
    with HttpClient(server.http_url) as client, pytest.raises(DeadlineExceeded):
        client.infer(request_, LONG, deadline_s=0.4)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@pytest.mark.parametrize("name", ["grpc", "http"])
def test_leaving_the_loop_cancels(server: TritonServer, request_: Request, name: str) -> None:
    before, way = at_rest(server)["cancelled_requests_total"], WAYS[name]
    with way.kind(way.url(server)) as client:
        pieces = client.stream(request_, LONG)
        next(pieces)
        pieces.close()
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@pytest.mark.parametrize("name", ["grpc asyncio", "http asyncio"])
def test_cancelling_the_task_cancels(server: TritonServer, request_: Request, name: str) -> None:
    before, way = at_rest(server)["cancelled_requests_total"], WAYS[name]

    async def leave() -> None:
        came = asyncio.Event()

        async def read() -> None:
            async for _ in way.kind(way.url(server)).stream(request_, LONG):
                came.set()

        task = asyncio.create_task(read())
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@pytest.mark.parametrize("name", ["grpc asyncio", "http asyncio"])
def test_closing_the_iterator_cancels(server: TritonServer, request_: Request, name: str) -> None:
    before, way = at_rest(server)["cancelled_requests_total"], WAYS[name]

    async def leave() -> None:
        pieces = way.kind(way.url(server)).stream(request_, LONG)
        await anext(pieces)
        await pieces.aclose()
        assert (await asyncio.to_thread(at_rest, server))["cancelled_requests_total"] == before + 1

    asyncio.run(leave())


@every_way
def test_it_waits_for_a_server_that_starts(server: TritonServer, request_: Request, answer: str, way: Way) -> None:
    port, late = free_port(), list[Any]()
    opening = threading.Timer(1.0, lambda: late.append(way.door(server, port).__enter__()))
    opening.start()
    try:
        deltas = way.ask(f"127.0.0.1:{port}", request_, sampling=SHORT, retry_s=15)
    finally:
        opening.join()
        late[0].__exit__()
    assert text(deltas) == answer
    assert way.num_asked(late[0]) == 1


@every_way
def test_without_retries_nobody_there_is_said_at_once(request_: Request, way: Way) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is Triton running"):
        way.ask(f"127.0.0.1:{free_port()}", request_, sampling=SHORT)
    assert time.monotonic() - started < 30


@every_way
def test_retries_end(request_: Request, way: Way) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="is Triton running"):
        way.ask(f"127.0.0.1:{free_port()}", request_, sampling=SHORT, retry_s=0.8)
    assert 0.2 < time.monotonic() - started < 30


@every_way
def test_a_silent_server_is_given_up(request_: Request, way: Way) -> None:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(Unavailable, match=r"sent nothing for 0\.5 s|is Triton running"):
            way.ask(f"127.0.0.1:{silent.getsockname()[1]}", request_, sampling=SHORT, timeout_s=0.5)
        with pytest.raises(DeadlineExceeded, match=r"deadline of 0\.3 s"):
            way.ask(f"127.0.0.1:{silent.getsockname()[1]}", request_, sampling=SHORT, deadline_s=0.3)


@every_way
def test_a_port_of_something_else(request_: Request, way: Way) -> None:
    """A server that says what neither protocol knows, as the other port of a Triton would."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    there, _ = other.accept()
                    with there:
                        there.recv(1 << 16)
                        there.sendall(b"\0\0\x18\x04 none\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        says = "speaks no HTTP" if way.is_http else "with gRPC on this port"
        with pytest.raises(Unavailable, match=says):
            way.ask(f"127.0.0.1:{other.getsockname()[1]}", request_, sampling=SHORT, timeout_s=10)
        other.shutdown(socket.SHUT_RDWR)


@every_way
def test_a_lost_connection_is_said_and_nothing_is_sent_twice(
    server: TritonServer, request_: Request, answer: str, way: Way
) -> None:
    with way.door(server) as door:
        session = way.open(door.url, retry_s=30)
        threading.Timer(0.5, door.slam).start()
        with pytest.raises(Unavailable, match=r"was lost after \d+ pieces"):
            session.ask(request_, LONG)
        assert way.num_asked(door) == 1
    at_rest(server)
    with session, way.door(server, door.port) as door:  # the same client, once a server listens there again
        assert text(session.ask(request_, SHORT)) == answer
        assert way.num_asked(door) == 1


@every_way
def test_tls_and_headers_reach_the_server(
    server: TritonServer, request_: Request, answer: str, tmp_path: Path, way: Way
) -> None:
    pair = certificate(tmp_path)
    with way.door(server, pair=pair) as door:
        deltas = way.ask(door.url, request_, sampling=SHORT, tls=Tls(pair[1]), headers={"Authorization": "Bearer 7"})
        assert text(deltas) == answer
        asked = way.num_asked(door)
        if way.is_http:
            assert sum(sent.count(b"Authorization: Bearer 7\r\n") for sent in door.seen) == len(door.paths()) > 1
        else:
            assert door.seen[0]["authorization"] == "Bearer 7"
        with pytest.raises(Unavailable):  # a self-signed certificate
            way.ask(door.url, request_, sampling=SHORT, tls=Tls(), timeout_s=10)
        assert way.num_asked(door) == asked == 1
    with pytest.raises(InvalidInput, match="cannot be read"):
        way.ask(door.url, request_, sampling=SHORT, tls=Tls(tmp_path / "none.pem"))


@every_way
def test_a_server_may_ask_who_we_are(
    server: TritonServer, request_: Request, answer: str, tmp_path: Path, way: Way
) -> None:
    (tmp_path / "ours").mkdir()
    pair, ours = certificate(tmp_path), certificate(tmp_path / "ours")
    with way.door(server, pair=pair, guests=ours[1]) as door:
        tls = Tls(pair[1], private_key=ours[0], certificate_chain=ours[1])
        assert text(way.ask(door.url, request_, sampling=SHORT, tls=tls)) == answer
        with pytest.raises(Unavailable):
            way.ask(door.url, request_, sampling=SHORT, tls=Tls(pair[1]), timeout_s=10)
        assert way.num_asked(door) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "http://",
        "http://user:word@host",
        "127.0.0.1:port",
        "http://[::1",
        "http://[zz]:80",
        "http://a b:1",
    ],
)
def test_a_url_that_is_none_is_named(url: str) -> None:
    for client in (HttpClient, GrpcClient):
        with pytest.raises(InvalidInput, match="is expected"):
            client(url)


def test_an_http_url_may_have_a_prefix(server: TritonServer) -> None:
    """Behind a proxy Triton may live in a folder; here that folder is one Triton knows, so the rest is not found."""
    with HttpClient(f"http://{server.http_url}/") as client:
        assert client.server()[0] == "triton"
    with HttpClient(f"http://{server.http_url}/v2/models/edge_vlm/ready") as client, pytest.raises(NotFound):
        client.server()


def test_arguments_are_checked() -> None:
    with pytest.raises(InvalidInput, match="precision is 'fp8', allowed are fp16, fp32, int8"):
        GrpcClient(precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="write https"):
        HttpClient("http://127.0.0.1", tls=Tls())
    for name in ("timeout_s", "budget_s", "retry_s"):
        for seconds in (-1.0, float("nan"), float("inf"), 1e300):
            with pytest.raises(InvalidInput, match=f"{name} is "):
                GrpcClient(**{name: seconds})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"deadline_s is nan, a number of seconds from 0"):
        GrpcClient("127.0.0.1:9").patience(float("nan"))
    assert "secret" not in repr(GrpcClient(headers={"authorization": "secret"}))
