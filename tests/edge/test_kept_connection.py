"""Requests of a client follow each other on one network connection, which ends when it is idle or no longer good."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.relay import Relay
from contract.errors import Unavailable
from edge_runtime import AsyncHttpClient, GrpcClient, HttpClient, Pipeline, Request, Sampling, Tls
from edge_runtime.clients.idle import Idle
from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import certificate
from tests.edge.ways import WAYS, Way, every_way, text
from tests.scrape import at_rest
from tests.waiting import seconds_until, wait_for
from tiny_model.scenes import shapes_scene

SHORT = Sampling(max_tokens=4)
LONG = Sampling(max_tokens=3000, ignore_eos=True)


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline) -> list[Request]:
    random = Random(31)
    return [pipeline.ask(shapes_scene(random, 96, 96, 2).image, "What do you see?") for _ in range(5)]


def settle(relay: Relay, num_open: int) -> None:
    """Wait until so many connections are open."""
    took = seconds_until(lambda: relay.num_open == num_open)
    assert took is not None, f"{relay.num_open} connections are open, {num_open} are expected"


@every_way
def test_five_requests_one_connection(server: TritonServer, asked: list[Request], way: Way) -> None:
    alone = [text(deltas) for deltas in way.ask(way.url(server), *asked, sampling=SHORT)]
    with Relay(way.url(server)) as relay:
        answers = way.ask(relay.url, *asked, sampling=SHORT)
        assert [text(deltas) for deltas in answers] == alone
        assert relay.num_connections == 1
        settle(relay, 0)  # a client that is closed leaves nothing open


@every_way
def test_five_requests_one_connection_with_tls(
    server: TritonServer, asked: list[Request], tmp_path: Path, way: Way
) -> None:
    pair = certificate(tmp_path)
    with Relay(way.url(server), pair=pair) as relay:
        url = f"https://{relay.url}" if way.is_http else relay.url
        way.ask(url, *asked, sampling=SHORT, tls=Tls(pair[1]))
        assert relay.num_connections == 1


@every_way
def test_one_that_left_early_does_not_cost_the_next_its_answer(
    server: TritonServer, asked: list[Request], way: Way
) -> None:
    """A gRPC connection carries on after a cancel; an HTTP one has to be closed, for that is the cancel."""
    with Relay(way.url(server)) as relay, way.open(relay.url) as session:
        with pytest.raises(Exception, match="deadline"):
            session.ask(asked[0], LONG, deadline_s=0.3)
        at_rest(server)
        want = text(WAYS["grpc"].ask(server.grpc_url, asked[1], sampling=SHORT))
        assert text(session.ask(asked[1], SHORT)) == want


@every_way
def test_a_connection_that_broke_while_idle_is_opened_again(
    server: TritonServer, asked: list[Request], way: Way
) -> None:
    with Relay(way.url(server)) as relay:

        async def both() -> list[Any]:
            async with way.kind(relay.url) as client:
                first = [delta async for delta in client.stream(asked[0], SHORT)]
                await asyncio.to_thread(relay.cut)
                await asyncio.sleep(0.2)
                return [first, [delta async for delta in client.stream(asked[0], SHORT)]]

        if way.is_async:
            first, second = asyncio.run(both())
        else:
            with way.kind(relay.url) as client:
                first = list(client.stream(asked[0], SHORT))
                relay.cut()
                time.sleep(0.2)
                second = list(client.stream(asked[0], SHORT))
        assert text(first) == text(second)
        assert relay.num_connections == 2


@pytest.mark.parametrize("name", ["grpc", "http"])
def test_threads_share_a_client_and_its_connections(server: TritonServer, asked: list[Request], name: str) -> None:
    way, num_threads = WAYS[name], 6
    with Relay(way.url(server)) as relay, way.kind(relay.url) as client:
        want = {id(request): text(list(client.stream(request, SHORT))) for request in asked}
        with ThreadPoolExecutor(num_threads) as pool:
            jobs = [pool.submit(lambda r=request: text(list(client.stream(r, SHORT)))) for request in asked * 8]
            assert [job.result() for job in jobs] == [want[id(request)] for request in asked] * 8
        assert relay.num_connections <= (num_threads + 1 if way.is_http else 1)


def test_many_tasks_share_a_session(server: TritonServer, asked: list[Request]) -> None:
    with Relay(server.http_url) as relay:

        async def all_of_them() -> None:
            async with AsyncHttpClient(relay.url) as client:

                async def one(request: Request) -> str:
                    return text([delta async for delta in client.stream(request, SHORT)])

                await asyncio.gather(*map(one, asked))
                opened = relay.num_connections
                await asyncio.gather(*map(one, asked))
                assert relay.num_connections == opened <= len(asked)

        asyncio.run(all_of_them())


def test_a_loop_that_ends_takes_its_connections_along(
    server: TritonServer, asked: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody closed the client, and aiohttp has nothing to complain about."""
    with Relay(server.http_url) as relay:
        clients = [AsyncHttpClient(relay.url)]

        async def ask() -> None:
            (client,) = clients
            assert [delta async for delta in client.stream(asked[0], SHORT)]
            assert relay.num_open == 1

        for turn in (1, 2):
            asyncio.run(ask())
            settle(relay, 0)
            assert relay.num_connections == turn
        clients.clear()
        gc.collect()
        assert not caplog.records


@pytest.mark.parametrize("kind", [GrpcClient, HttpClient])
def test_a_client_that_is_forgotten_leaves_nothing_open(server: TritonServer, kind: Any) -> None:
    with Relay(server.grpc_url if kind is GrpcClient else server.http_url) as relay:
        client = kind(relay.url)
        client.server()
        assert relay.num_open == 1
        del client
        gc.collect()
        settle(relay, 0)


def test_a_question_is_not_sent_twice_where_nobody_knows_if_it_was_received(asked: list[Request]) -> None:
    """A server that ends a kept connection in the moment it is used again: uploads are repeated, questions are not."""
    import http.server

    paths: list[str] = []

    class Once(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, num_before: int) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            paths.append(self.path)
            if num_before:  # the second request of a connection: gone without a word
                self.close_connection = True
                return
            body = b'{"name": "triton", "version": "2"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.num = getattr(self, "num", 0)
            self.answer(self.num)
            self.num += 1

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Once) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        with HttpClient(f"127.0.0.1:{there.server_port}") as client:
            assert client.server() == client.server() == ("triton", "2")
            assert len(paths) == 3  # the second was repeated on a new connection
            text_only = Request(asked[0].input_ids[:4], (), asked[0].encoder_fingerprint)
            with pytest.raises(Unavailable, match="broke before an answer"):
                list(client.stream(text_only, SHORT))
            assert sum("generate_stream" in path for path in paths) == 1
        there.shutdown()


class Thing:
    """Something to close."""

    def __init__(self) -> None:
        self.num_closed = 0

    def close(self) -> None:
        self.num_closed += 1


def test_idle_connections_are_bounded_in_number_and_time() -> None:
    idle, things = Idle[Thing](max_idle=2, idle_s=2.0), [Thing() for _ in range(3)]
    for thing in things:
        idle.give(thing)
    assert [thing.num_closed for thing in things] == [0, 0, 1]
    assert idle.take() is things[1]  # the one used last
    time.sleep(1.5)
    idle.give(things[1])
    wait_for(lambda: things[0].num_closed)  # its timer has fired, the second is 1.5 s younger
    assert (things[0].num_closed, things[1].num_closed, len(idle)) == (1, 0, 1)
    wait_for(lambda: things[1].num_closed)
    assert (things[1].num_closed, len(idle)) == (1, 0)
    idle.close()
    idle.give(things[0])
    assert things[0].num_closed == 2
    assert idle.take() is None
