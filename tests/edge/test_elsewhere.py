"""What lies between a client and several servers: the affinity header, servers that leave, keys that miss, proxies."""

import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as messages

from contract.errors import ServerError, Unavailable
from contract.names import MODEL
from edge_runtime import Pipeline, Request, Sampling
from edge_runtime.clients.affinity import HEADER, affinity
from edge_runtime.clients.grpc_channel import typed
from edge_runtime.clients.held_keys import MAX_CREDIT, HeldKeys
from edge_runtime.clients.http_steps import Reply
from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import Door
from tests.edge.ways import WAYS, Way, every_way, text
from tiny_model.scenes import shapes_scene

SHORT = Sampling(max_tokens=4)
LEAVES = "Request for unknown model: 'edge_vlm' has no available versions"


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline) -> list[Request]:
    random = Random(61)
    return [pipeline.ask(shapes_scene(random, 96, 96, 2).image, "What do you see?") for _ in range(4)]


def test_a_picture_has_one_affinity_whatever_is_asked(pipeline: Pipeline, asked: list[Request]) -> None:
    values = [affinity({}, request)[HEADER] for request in asked]
    assert len(set(values)) == len(asked)
    assert affinity({}, replace(asked[0], input_ids=asked[1].input_ids))[HEADER] == values[0]
    assert affinity({}, asked[0], num_refused=1)[HEADER] != values[0]
    assert affinity({"Edge-VLM-Affinity": "mine"}, asked[0]) == {}
    assert affinity({}, Request(asked[0].input_ids, (), asked[0].encoder_fingerprint)) == {}


@every_way
def test_every_request_about_a_picture_says_it(server: TritonServer, asked: list[Request], way: Way) -> None:
    want = affinity({}, asked[0])[HEADER]
    with way.door(server) as door:
        way.ask(door.url, asked[0], asked[0], sampling=SHORT)
        if way.is_http:
            sent = b"".join(door.seen)
            assert sent.count(f"{HEADER}: {want}\r\n".encode()) == len(door.paths()) == 3
        else:
            assert [seen[HEADER] for seen in door.seen] == [want, want]


class Leaver(Door):
    """A gRPC door whose first answers are those of a server that leaves."""

    def __init__(self, target: str, num_leaving: int) -> None:
        super().__init__(target)
        self.num_leaving = num_leaving

    def service(self, details: Any) -> Any:
        through = super().service(details)
        if self.num_leaving <= 0:
            return through
        self.num_leaving -= 1

        def leave(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            next(requests)
            yield messages.ModelStreamInferResponse(error_message=LEAVES).SerializeToString()

        return grpc.stream_stream_rpc_method_handler(leave)


@pytest.mark.parametrize("name", ["grpc", "grpc asyncio"])
def test_a_server_that_leaves_sends_a_request_elsewhere(server: TritonServer, asked: list[Request], name: str) -> None:
    want = text(WAYS["grpc"].ask(server.grpc_url, asked[1], sampling=SHORT))
    with Leaver(server.grpc_url, 3) as door:
        assert text(WAYS[name].ask(door.url, asked[1], sampling=SHORT)) == want
        assert len({seen[HEADER] for seen in door.seen}) == len(door.seen) == 4


def test_a_server_that_leaves_for_good_is_said(server: TritonServer, asked: list[Request]) -> None:
    with Leaver(server.grpc_url, 1000) as door, pytest.raises(ServerError, match="no available versions"):
        WAYS["grpc"].ask(door.url, asked[1], sampling=SHORT, deadline_s=1.0)


@contextmanager
def proxy(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers by path; gives its host:port and the paths it was asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            paths.append(self.path)
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{there.server_port}", paths
        finally:
            there.shutdown()


@pytest.mark.parametrize("name", ["http", "http asyncio"])
def test_http_asks_elsewhere_too(asked: list[Request], name: str) -> None:
    left = iter([True, True])

    def answer(path: str) -> tuple[int, bytes]:
        body = b'{"error":"%s"}' % LEAVES.encode()
        return (400, body) if next(left, False) else (404, b'{"error":"[INVALID_ARG] that far"}')

    with proxy(answer) as (url, paths), pytest.raises(Exception, match="that far"):
        WAYS[name].ask(url, replace(asked[0], items=()), sampling=SHORT)
    assert len(paths) == 3


@pytest.mark.parametrize("name", ["http", "http asyncio"])
def test_pictures_that_reach_another_server_than_their_question_go_with_it(
    server: TritonServer, asked: list[Request], name: str
) -> None:
    """A balancer that knows no affinity: questions reach a server that never holds anything."""
    way = WAYS[name]
    want = text(WAYS["grpc"].ask(server.grpc_url, asked[2], sampling=SHORT))
    with way.door(server) as door:
        session = way.open(door.url)
        client = session.client
        key = "0" * 64  # what the other server answered and this one does not know

        class Elsewhere(HeldKeys):
            def __contains__(self, name: object) -> bool:
                return True

            def __len__(self) -> int:
                return 1

        client.held = Elsewhere()
        for item in asked[2].items:
            item.wire_keys[("fp16", item.is_video)] = key
        with session:
            said = session.ask(asked[2], SHORT)
        assert text(said) == want
        assert len(said) == 1  # one request, one answer
        assert sum("generate_stream" in path for path in door.paths()) == 2
        for item in asked[2].items:
            item.wire_keys.clear()


@pytest.mark.parametrize("name", ["http", "http asyncio"])
def test_the_miss_that_ends_the_use_of_keys_costs_no_answer(
    server: TritonServer, asked: list[Request], name: str
) -> None:
    """The client notes no key from then on, and still asks by the keys that the server has just answered."""
    way = WAYS[name]
    want = text(WAYS["grpc"].ask(server.grpc_url, asked[3], sampling=SHORT))
    (item,) = asked[3].items
    with way.open(way.url(server)) as session:
        held = session.client.held
        for _ in range(MAX_CREDIT - 1):
            held.miss()
        item.wire_keys[("fp16", item.is_video)] = "0" * 64  # the server does not hold it
        held.add(["0" * 64])
        assert text(session.ask(asked[3], SHORT)) == want
        assert not held.is_useful
        assert text(session.ask(asked[3], SHORT)) == want


def test_keys_that_only_miss_are_given_up() -> None:
    held = HeldKeys()
    held.add(["a", "b"])
    for _ in range(100):  # as many hits as misses: worth it
        held.miss()
        held.hit()
    assert held.is_useful
    for _ in range(MAX_CREDIT):
        held.miss()
    assert not held.is_useful
    assert "a" not in held
    held.add(["c"])
    held.hit()
    assert not held.is_useful
    assert len(held) == 0


@pytest.mark.parametrize("name", ["http", "http asyncio", "grpc", "grpc asyncio"])
def test_a_proxy_that_wants_credentials_is_understood(asked: list[Request], name: str) -> None:
    page = b"<html><head><title>401 Authorization Required</title></head><body>" + b"x" * 1000 + b"</body></html>"
    way = WAYS[name]
    if way.is_http:
        with proxy(lambda path: (401, page)) as (url, _), pytest.raises(ServerError) as found:
            way.ask(url, asked[0], sampling=SHORT)
    else:

        class Guard(grpc.ServerInterceptor):  # type: ignore[misc]
            def intercept_service(self, go_on: Any, details: Any) -> Any:
                def refuse(requests: Any, context: Any) -> Any:
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Received http2 header with status: 401")

                return grpc.stream_stream_rpc_method_handler(refuse)

        there = grpc.server(ThreadPoolExecutor(2), interceptors=[Guard()])
        port = there.add_insecure_port("127.0.0.1:0")
        there.start()
        try:
            with pytest.raises(ServerError) as found:
                way.ask(f"127.0.0.1:{port}", asked[0], sampling=SHORT)
        finally:
            there.stop(0).wait(5)
    assert "HTTP 401" in str(found.value)
    assert "credentials are missing or wrong" in str(found.value)
    assert len(str(found.value)) < 250


def test_an_error_of_a_stream_is_read_whole() -> None:
    words = "[INVALID_ARG] " + "a long story " * 100
    for body in (f'{{"error":"{words}"}}', f'data: {{"error":"{words}"}}\n\n'):
        assert str(Reply(400, {}, body.encode()).error()) == words.removeprefix("[INVALID_ARG] ")
    assert isinstance(Reply(503, {}, b"").error(), Unavailable)


def test_a_server_without_room_and_a_broken_connection_are_unavailable() -> None:
    """A gateway answers 503 then: the same request may succeed later."""
    full = "in ensemble, Failed to increase the shared memory pool size for key 'a' to 67108864 bytes."
    assert isinstance(Reply(500, {}, json.dumps({"error": full}).encode()).error(), Unavailable)
    assert isinstance(typed(full), Unavailable)
    for words, code in (
        ("Received RST_STREAM with error code 2", grpc.StatusCode.INTERNAL),
        ("Stream removed", grpc.StatusCode.UNKNOWN),
    ):
        assert isinstance(typed(words, code), Unavailable)
    assert type(typed("another", grpc.StatusCode.INTERNAL)) is ServerError
    assert type(typed("[INTERNAL] Stream of rows removed", grpc.StatusCode.INTERNAL)) is ServerError


def test_a_long_error_of_a_real_stream_is_read_whole(server: TritonServer, asked: list[Request]) -> None:
    bad = Sampling(max_tokens=1 << 20)
    said = []
    for name, url in (("http", server.http_url), ("grpc", server.grpc_url)):
        with pytest.raises(Exception, match="max_tokens") as found:
            WAYS[name].ask(url, asked[0], sampling=bad)
        said.append(str(found.value))
    assert said[0] == said[1]


def test_what_the_contract_says_of_the_wrong_door(server: TritonServer) -> None:
    """Triton's own answers where one answer is asked of the model that streams: docs/contract.md repeats them."""
    body = json.dumps({"text_input": "Hello", "max_tokens": 4, "ignore_eos": True, "stream": True}).encode()
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/{MODEL}/generate", body, timeout=30) as answer:
        assert answer.status == 200
        assert list(json.loads(answer.read())) == ["error"]
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(f"http://{server.http_url}/v2/models/{MODEL}/infer", b'{"inputs": []}', timeout=30)
    assert found.value.code == 501
