"""Callers that announce, trickle, pack and invent: the gateway answers the others all the while, and holds nothing afterwards."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InvalidInput
from edge_runtime.gateway import chat_request, json_body
from edge_runtime.gateway.app import KINDS, POOLED
from edge_runtime.gateway.failures import Failure, failure_of
from edge_runtime.gateway.sampling_fields import PASSED
from edge_runtime.gateway.settings import Settings
from serving.triton.launcher import TritonServer
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaving import SHORT_PATIENCE
from tests.waiting import wait_for

MB = 1 << 20
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def impatient(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    flags = ["--max-body-bytes", str(64 * MB), "--max-pending-bytes", str(256 * MB)]
    with gateway_process(bundle_folder, server.grpc_url, *flags, patience=SHORT_PATIENCE) as gateway:
        yield gateway


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection((gateway.host, gateway.port), timeout=20)


def status(sender: socket.socket) -> bytes:
    return sender.makefile("rb").readline()[9:12]


def test_both_lengths_are_refused_and_nothing_is_held(impatient: Gateway) -> None:
    for _ in range(5):
        with connected(impatient) as sender:
            sender.sendall(
                HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % (64 * MB)
            )
            assert status(sender) == b"400"
    assert impatient.counted("body_bytes") == 0
    assert impatient.ask(body=HELLO)[0] == 200


def test_announced_bytes_are_nobodys(impatient: Gateway) -> None:
    """Four bodies of 64 MiB, each with a byte so far: the fifth caller is answered, and the four are not waited for long."""
    senders = [connected(impatient) for _ in range(4)]
    try:
        for sender in senders:
            sender.sendall(HEAD + b"Content-Length: %d\r\n\r\n{" % (64 * MB))
        assert impatient.ask(body=HELLO)[0] == 200
        assert [status(sender) for sender in senders] == [b"408"] * 4
    finally:
        for sender in senders:
            sender.close()
    assert impatient.counted("body_bytes") == 0


def test_one_caller_leaves_room_for_others(bundle_folder: Path, server: TritonServer) -> None:
    """Three quarters of the places are one caller's share, also for bodies that never end."""
    flags = ["--api-key", "one", "two", "--max-concurrency", "8"]
    with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway:
        senders = [connected(gateway) for _ in range(20)]
        try:
            for sender in senders:
                sender.sendall(HEAD + b"Authorization: Bearer one\r\nContent-Length: 100\r\n\r\n{")
            assert status(senders[-1]) in (b"429", b"503")
            wait_for(lambda: gateway.counted("requests_running") == 6)  # nobody waits for the rest of a refused body
            code, answer, headers = gateway.ask(body=HELLO, Authorization="Bearer one")
            assert (code, headers["Retry-After"]) == (429, "1")
            assert "6 of your requests are under way, which is the most of one client" in answer["error"]["message"]
            assert gateway.ask(body=HELLO, Authorization="Bearer two")[0] == 200
        finally:
            for sender in senders:
                sender.close()


def test_one_callers_answers_leave_the_server_to_others(bundle_folder: Path, server: TritonServer) -> None:
    """Two of its answers are written, the third waits; another caller's comes while those go on."""
    flags = ["--api-key", "one", "two", "--max-answers-per-client", "2"]
    long = {"messages": HELLO["messages"], "max_tokens": 1900, "extra_body": {"ignore_eos": True}, "stream": True}
    with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway, ThreadPoolExecutor(1) as pool:
        client = gateway.client("one").chat.completions
        first, second = (client.create(model="edge_vlm", **long) for _ in range(2))
        next(first), next(second)
        third = pool.submit(client.create, model="edge_vlm", **long)
        wait_for(lambda: gateway.counted("requests_running") == 3)
        assert gateway.ask(body=HELLO, Authorization="Bearer two")[0] == 200
        assert not third.done()
        first.close()
        next(third.result())
        second.close(), third.result().close()
        wait_for(lambda: gateway.counted("requests_running") == 0)


@pytest.mark.parametrize("rest", [b"GET /hea", HEAD + b"Content-Length: 1000\r\n\r\n"])
def test_later_requests_have_the_first_ones_limits(impatient: Gateway, rest: bytes) -> None:
    with connected(impatient) as sender:
        sender.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += sender.recv(4096)
        sender.sendall(rest)
        for _ in range(8):  # a byte now and then, for ever
            time.sleep(0.5)
            try:
                sender.sendall(b"x")
            except OSError:
                break
        said = sender.makefile("rb").read()  # the end comes
    assert said == b"" or b" 408 " in said


def test_the_rest_of_a_body_that_was_answered(impatient: Gateway) -> None:
    with connected(impatient) as sender:
        sender.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
        assert sender.recv(4096).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 15:
                sender.sendall(b"x")
                time.sleep(0.25)
        except OSError:
            pass
        assert time.monotonic() - begun < 10


def test_large_json_holds_up_nobody(impatient: Gateway) -> None:
    """20 MiB of small values: refused unparsed, while /health goes on answering."""
    body = b'{"messages": [' + b'{"a":1},' * (20 * MB // 8) + b"1]}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(impatient.ask, body=body)
        gaps = []
        while not asked.done():
            begun = time.monotonic()
            assert impatient.ask("/health")[0] == 200
            gaps.append(time.monotonic() - begun)
        code, answer, _ = asked.result()
    assert (code, "JSON values" in answer["error"]["message"]) == (400, True)
    assert max(gaps) < 3  # it was 15 s


LONG = "word " * 200_000
SAID = {"role": "user", "content": "Hi"}
FUNCTION = {"name": "f", "description": LONG}
CALLED = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": LONG}}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [SAID], "tools": [{"type": "function", "function": FUNCTION}]}),
        ("/v1/chat/completions", {"messages": [SAID, CALLED, SAID]}),
        ("/v1/chat/completions", {"messages": [SAID | {"name": LONG}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}] * 16_000}),
        ("/v1/chat/completions", {"messages": [SAID], "chat_template_kwargs": {"words": ["word"] * 100_000}}),
        ("/tokenize", {"messages": [SAID], "tools": [{"type": "function", "function": FUNCTION}]}),
        ("/v1/messages/count_tokens", {"messages": [SAID], "tools": [FUNCTION | {"input_schema": {}}]}),
        ("/v1/responses", {"input": "Hi", "tools": [FUNCTION | {"type": "function"}]}),
        ("/api/chat", {"messages": [SAID], "tools": [{"type": "function", "function": FUNCTION}]}),
    ],
)
def test_all_that_a_template_may_write_is_bounded_before_it_runs(
    impatient: Gateway, path: str, body: dict[str, Any]
) -> None:
    """The texts of tools and calls were not counted: 8 MiB of them silenced the gateway for 29 s and took 2 GB."""
    status, answer, _ = impatient.ask(path, body)
    assert (status, "characters for the prompt" in str(answer)) == (400, True), answer


@pytest.mark.parametrize("path", KINDS | POOLED)
def test_what_a_reader_looks_at_one_by_one_is_bounded(path: str) -> None:
    """60,000 unknown fields silenced the gateway for 30 s, 120,000 empty messages for 4 s, whoever had left meanwhile."""
    read, fields = (KINDS | POOLED)[path].read, {f"k{number}": number for number in range(2000)}
    with pytest.raises(Failure, match="more than 128 unknown fields, 'k128' among them"):
        chat_request.parse(json.dumps(fields).encode(), Settings(), read)
    for name in ("messages", "input", "documents", "tools"):
        body = json.dumps({name: [{"role": "user", "content": ""}] * 20_000}).encode()
        with pytest.raises(Failure, match="the body holds 20001 JSON objects, up to 16384 are read"):
            chat_request.parse(body, Settings(), read)
    code = json.dumps({"messages": [{"role": "user", "content": "{" * 20_000}]}).encode()
    assert json_body.read_json(code)["messages"]


def test_packed_bodies(impatient: Gateway) -> None:
    packed = {"Content_Encoding": "gzip"}
    question = HELLO | {"messages": [user(picture_part(drawn(1)[0].image), "Describe the image.")]}
    assert impatient.ask(body=gzip.compress(json.dumps(question).encode()), **packed)[0] == 200
    before = impatient.peak_bytes()
    bomb = gzip.compress(b" " * (400 * MB), 9)
    assert len(bomb) < MB
    assert impatient.ask(body=bomb, **packed)[0] == 413
    assert impatient.peak_bytes() - before < 150 * MB  # up to the limit of a body, and no further
    for body in (b"{}", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"x"):
        code, answer, _ = impatient.ask(body=body, **packed)
        assert (code, "no gzip" in answer["error"]["message"]) == (400, True)
    assert impatient.ask(body=HELLO, Content_Encoding="br")[0] == 415
    assert impatient.counted("body_bytes") == 0


def test_who_is_asking_is_not_for_the_asker_to_say(bundle_folder: Path, server: TritonServer) -> None:
    limit = ["--max-requests-per-minute", "2"]

    def asked(gateway: Gateway) -> list[int]:
        return [gateway.ask(body=HELLO, X_Forwarded_For=f"192.0.2.{count}")[0] for count in range(4)]

    with gateway_process(bundle_folder, server.grpc_url, *limit) as gateway:
        assert asked(gateway) == [200, 200, 429, 429]
    with gateway_process(bundle_folder, server.grpc_url, *limit, "--trusted-proxies", "127.0.0.0/8") as gateway:
        assert asked(gateway) == [200] * 4
        assert gateway.ask(body=HELLO, X_Forwarded_For="198.51.100.1, 192.0.2.0")[0] == 200  # the proxy's own word
        assert gateway.ask(body=HELLO, X_Forwarded_For="198.51.100.2, 192.0.2.0")[0] == 429


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*PASSED, *chat_request.READ, *chat_request.NEUTRAL} - {"messages"})
PLACES = ("role", "content", "name", "tool_call_id", "tool_calls", "reasoning", "refusal", "audio")
PARTS = ("type", "text", "image_url", "video_url", "video", "fps", "max_pixels", "resized_width", "sample_fps")


@settings(max_examples=1500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
    st.dictionaries(st.sampled_from(PLACES), JSON, max_size=3),
    st.dictionaries(
        st.sampled_from(PARTS), JSON | st.sampled_from(["text", "image_url", "video", "data:,"]), max_size=4
    ),
)
def test_any_body_is_read_or_refused(top: dict[str, Any], message: dict[str, Any], part: dict[str, Any]) -> None:
    """What a caller writes is never our fault: nothing but the typed refusals comes out."""
    messages = [{"role": "user", "content": [part]} | message, {"role": "assistant", "tool_calls": [part]}]
    for body in ({"messages": messages} | top, HELLO | top):
        try:
            chat_request.parse(json.dumps(body).encode("utf-8", "surrogatepass"), Settings())
        except (Failure, InvalidInput) as error:
            assert 400 <= failure_of(error).status < 500  # noqa: PT017  many are refused, some are not
