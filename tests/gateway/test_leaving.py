"""Callers go away, read nothing or say nothing: their request ends here and on the server, and nothing stays behind."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.triton.launcher import TritonServer
from tests.edge.test_workers import endless  # noqa: F401  a fixture
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.scrape import at_rest
from tests.waiting import wait_for

LONG = {"max_tokens": 3000, "ignore_eos": True}
QUESTION = [user(picture_part(drawn(1)[0].image), "Describe the image.")]
SHORT_PATIENCE = (
    "from edge_runtime.gateway import body, connection; "
    "body.BODY_S = body.GRACE_S = connection.READ_NOTHING_S = connection.SAY_NOTHING_S = 2"
)


@pytest.fixture(scope="module")
def impatient(bundle_folder: Path, server: TritonServer) -> Iterator[Gateway]:
    with gateway_process(bundle_folder, server.grpc_url, patience=SHORT_PATIENCE) as gateway:
        yield gateway


def cancelled(server: TritonServer) -> float:
    return at_rest(server)["cancelled_requests_total"]


def sent(gateway: Gateway, body: dict[str, Any], receive_buffer: int = 0) -> socket.socket:
    """A connection on which a request was sent and nothing read."""
    data = json.dumps(body).encode()
    sender = socket.socket()
    if receive_buffer:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sender.settimeout(60)
    sender.connect((gateway.host, gateway.port))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sender.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return sender


def test_leaving_a_stream_of_the_official_client(gateway: Gateway, server: TritonServer) -> None:
    before, ended = cancelled(server), gateway.counted("request_seconds_count")
    stream = gateway.client().chat.completions.create(
        model="edge_vlm", messages=QUESTION, stream=True, max_tokens=3000, extra_body={"ignore_eos": True}  # type: ignore[arg-type]
    )  # fmt: skip
    for _, chunk in zip(range(4), stream, strict=False):
        assert isinstance(chunk, openai.types.chat.ChatCompletionChunk)
    stream.close()
    assert cancelled(server) == before + 1
    wait_for(lambda: gateway.counted("request_seconds_count") == ended + 1)
    assert gateway.counted("requests_running") == 0


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_caller_who_vanishes(gateway: Gateway, server: TritonServer, is_stream: bool) -> None:
    before, started = cancelled(server), gateway.counted("time_to_first_token_seconds_count")
    sender = sent(gateway, {"messages": QUESTION, "stream": is_stream} | LONG)
    wait_for(lambda: gateway.counted("time_to_first_token_seconds_count") == started + 1)
    sender.close()
    assert cancelled(server) == before + 1
    wait_for(lambda: gateway.counted("requests_running") == 0)
    assert 'status="499"' in gateway.ask("/metrics")[1]


def decoders(gateway: Gateway) -> int:
    """How many processes decode for this gateway."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            is_ours = int(parent) == gateway.process.pid
            found += is_ours and b"edge_runtime.items.worker" in (folder / "cmdline").read_bytes()
    return found


def test_leaving_ends_the_decoding(bundle_folder: Path, endless: Path) -> None:  # noqa: F811
    """A video of a million frames, and minutes for it: the process that decodes it ends with its caller."""
    flags = ["--allowed-local-media-path", endless.parent, "--max-decode-seconds", "600"]
    with gateway_process(bundle_folder, "127.0.0.1:1", *flags) as gateway:
        part = {"type": "video_url", "video_url": {"url": endless.as_uri()}}
        with sent(gateway, {"messages": [user(part, "What happens?")]}):
            wait_for(lambda: decoders(gateway) == 1)
        wait_for(lambda: decoders(gateway) == 0)
        wait_for(lambda: gateway.counted("requests_running") == 0)


def test_a_caller_who_reads_nothing(impatient: Gateway, server: TritonServer) -> None:
    before = cancelled(server)
    body = {"messages": QUESTION, "stream": True, "logprobs": True, "top_logprobs": 20} | LONG
    with sent(impatient, body, receive_buffer=4096) as sender:
        wait_for(lambda: cancelled(server) == before + 1, 60)
        wait_for(lambda: impatient.counted("requests_running") == 0)
        rest = sender.makefile("rb").read()  # what was on its way when the connection was cut
    assert b"data: {" in rest
    assert b"[DONE]" not in rest


def test_a_caller_who_says_nothing_or_too_little(impatient: Gateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for said, answer in (
        (b"", b""),
        (head, b""),
        (head + b"Content-Length: 100\r\n\r\n{", b"HTTP/1.1 408 Request Timeout\r\n"),
    ):
        with socket.create_connection((impatient.host, impatient.port), timeout=20) as sender:
            sender.sendall(said)
            assert sender.makefile("rb").readline() == answer
    assert impatient.counted("body_bytes") == 0


def test_leaving_before_the_body_is_whole(impatient: Gateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection((impatient.host, impatient.port)) as sender:
        sender.sendall(head + b"Content-Length: 100\r\n\r\n{")
        wait_for(lambda: impatient.counted("body_bytes") == 1)  # what came, not what was announced
    wait_for(lambda: impatient.counted("body_bytes") == 0)
    assert impatient.counted("requests_running") == 0


def test_stopping_ends_what_is_under_way(bundle_folder: Path, server: TritonServer) -> None:
    before = cancelled(server)
    patience = "from edge_runtime.gateway import server; server.STOP_S = 1"
    with gateway_process(bundle_folder, server.grpc_url, patience=patience) as gateway:
        sender = sent(gateway, {"messages": QUESTION, "stream": True} | LONG)
        assert sender.recv(12) == b"HTTP/1.1 200"
    assert gateway.process.returncode == -signal.SIGTERM  # uvicorn ends by the signal it was sent, after cleaning up
    sender.close()
    assert cancelled(server) == before + 1
