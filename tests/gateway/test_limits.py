"""Every limit against a gateway process of its own: right status, bounded memory, and it goes on answering."""

import socket
import ssl
import struct
import threading
import zlib
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest

from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import certificate
from tests.gateway.drawings import drawn, moving, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.waiting import wait_for

MB = 1 << 20
HELLO = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}
KEYS = ("first-key", "second-key")


@pytest.fixture(scope="module")
def strict(bundle_folder: Path, server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Small limits, keys, one folder, one origin."""
    folder = tmp_path_factory.mktemp("allowed")
    drawn(1)[0].image.save(folder / "picture.png")
    moving(folder / "clip.mp4", 0)
    (folder.parent / "secret.png").write_bytes((folder / "picture.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    flags = [
        "--api-key", *KEYS, "--limit-mm-per-prompt", '{"image": 2, "video": 1}', "--max-body-bytes", "1000000",
        "--allowed-local-media-path", folder, "--allowed-origins", '["https://app.example"]',
        "--served-model-name", "eyes", "qwen", "--override-generation-config", '{"max_tokens": 3, "seed": 1}',
    ]  # fmt: skip
    with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway:
        gateway.folder = folder  # type: ignore[attr-defined]
        yield gateway


def key(name: str = KEYS[0]) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def test_only_with_a_key(strict: Gateway) -> None:
    for headers in ({}, key("third-key"), key(""), {"Authorization": KEYS[0]}, {"Authorization": f"Basic {KEYS[0]}"}):
        for path, body in (("/v1/chat/completions", HELLO), ("/v1/models", None), ("/v1/models/eyes", None)):
            status, answer, got = strict.ask(path, body, **headers)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert got["WWW-Authenticate"] == "Bearer"
    for name in KEYS:
        assert strict.ask(body=HELLO, **key(name))[0] == 200
    with pytest.raises(openai.AuthenticationError):
        strict.client("third-key").models.list()
    for path in ("/health", "/ready", "/metrics"):
        assert strict.ask(path)[0] == 200


def test_the_names_it_was_given(strict: Gateway) -> None:
    client = strict.client(KEYS[0])
    assert [model.id for model in client.models.list()] == ["eyes", "qwen"]
    assert client.models.retrieve("qwen").id == "qwen"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("edge_vlm")
    completion = client.chat.completions.create(model="qwen", messages=HELLO["messages"])  # type: ignore[arg-type]
    assert completion.model == "eyes"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3  # --override-generation-config
    assert completion.choices[0].finish_reason == "length"


def test_pictures_in_one_request(strict: Gateway) -> None:
    part = picture_part(drawn(1)[0].image)
    for count, status in ((2, 200), (3, 400)):
        assert (
            strict.ask(body=HELLO | {"messages": [user(*[part] * count, "Describe the image.")]}, **key())[0] == status
        )


def test_files_of_one_folder_only(strict: Gateway) -> None:
    folder: Path = strict.folder  # type: ignore[attr-defined]

    def ask(path: str, kind: str = "image") -> int:
        part = {"type": f"{kind}_url", f"{kind}_url": {"url": f"file://{path}"}}
        return strict.ask(body=HELLO | {"messages": [user(part, "Describe the image.")]}, **key())[0]

    assert ask(f"{folder}/picture.png") == 200
    assert ask(f"{folder}/clip.mp4", "video") == 200
    for path in (f"{folder.parent}/secret.png", f"{folder}/../secret.png", f"{folder}/link.png", f"{folder}/none.png"):
        assert ask(path) == 400


def test_one_origin(strict: Gateway) -> None:
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        assert strict.ask("/health", Origin=origin)[2].get("access-control-allow-origin") == allowed


def test_a_large_body(strict: Gateway) -> None:
    before = strict.peak_bytes()
    status, answer, headers = strict.ask(body=b'{"x": "' + b"x" * 2_000_000 + b'"}', **key())
    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")
    assert "1000000 bytes" in answer["error"]["message"]
    assert headers["Connection"] == "close"
    client = strict.client(KEYS[0])
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(model="eyes", messages=[{"role": "user", "content": "x" * 2_000_000}])
    assert error.value.status_code == 413
    assert strict.peak_bytes() - before < 20 * MB


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_200_mb_is_not_held(strict: Gateway, is_chunked: bool) -> None:
    strict.ask(body=HELLO, **key())
    before, block = strict.peak_bytes(), b"x" * MB
    with socket.create_connection((strict.host, strict.port), timeout=60) as sender:
        how = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {200 * MB}"
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{how}\r\n"
        sender.sendall(f"{head}Authorization: Bearer {KEYS[0]}\r\n\r\n".encode())
        for _ in range(200):
            sender.sendall(f"{MB:x}\r\n".encode() + block + b"\r\n" if is_chunked else block)
        if is_chunked:
            sender.sendall(b"0\r\n\r\n")
        answer = sender.makefile("rb").readline()
    assert b" 413 " in answer
    assert strict.peak_bytes() - before < 20 * MB
    assert strict.counted("body_bytes") == 0
    assert strict.ask(body=HELLO, **key())[0] == 200


def test_who_asks_first_is_told_before_sending(strict: Gateway) -> None:
    """curl waits for a sign before it sends a large body."""
    with socket.create_connection((strict.host, strict.port), timeout=10) as sender:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Expect: 100-continue\r\nContent-Length: {200 * MB}\r\nAuthorization: Bearer {KEYS[0]}\r\n\r\n"
        sender.sendall(head.encode())
        assert b" 413 " in sender.makefile("rb").readline()


def bomb(side: int) -> str:
    """A PNG of one bit a pixel, nearly nothing of it on the wire."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), b""
    for _ in range(side):
        rows += packer.compress(bytes(1 + (side + 7) // 8))
    rows += packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + b64encode(data).decode()


def test_a_decompression_bomb(strict: Gateway) -> None:
    url = bomb(30_000)
    assert len(url) < 500_000
    before = strict.peak_bytes()
    part = {"type": "image_url", "image_url": {"url": url}}
    status, answer, _ = strict.ask(body=HELLO | {"messages": [user(part)]}, **key())
    assert status == 400
    assert "too large" in answer["error"]["message"]
    assert strict.peak_bytes() - before < 20 * MB


def test_so_many_a_minute(bundle_folder: Path, server: TritonServer) -> None:
    flags = ["--api-key", *KEYS, "--max-requests-per-minute", "3"]
    with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway:
        assert [gateway.ask(body=HELLO, **key())[0] for _ in range(4)] == [200, 200, 200, 429]
        status, answer, headers = gateway.ask(body=HELLO, **key())
        assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(headers["Retry-After"]) <= 20
        assert gateway.ask(body=HELLO, **key(KEYS[1]))[0] == 200  # each key has its own
        with pytest.raises(openai.RateLimitError):
            gateway.client(KEYS[0]).chat.completions.create(model="edge_vlm", messages=HELLO["messages"])  # type: ignore[call-overload]


def test_so_many_at_once(bundle_folder: Path, server: TritonServer) -> None:
    with gateway_process(bundle_folder, server.grpc_url, "--max-concurrency", "1") as gateway:
        stream = gateway.client().chat.completions.create(
            model="edge_vlm", messages=HELLO["messages"], stream=True, max_tokens=3000, extra_body={"ignore_eos": True}
        )  # type: ignore[call-overload]
        next(stream)
        status, answer, headers = gateway.ask(body=HELLO)
        assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "overloaded", "1")
        stream.close()
        wait_for(lambda: gateway.counted("requests_running") == 0)
        assert gateway.ask(body=HELLO)[0] == 200


class Site(BaseHTTPRequestHandler):
    """A site that is never reached, and would be seen if it were."""

    num_asked = 0

    def do_GET(self) -> None:
        Site.num_asked += 1
        self.send_response(404)
        self.end_headers()


def test_hosts_and_addresses(bundle_folder: Path, server: TritonServer) -> None:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    flags = ["--allowed-media-domains", "localhost", "pictures.example"]
    try:
        with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway:
            for host, says in (("127.0.0.1", "allowed_media_domains"), ("localhost", "not a public address")):
                url = f"http://{host}:{site.server_port}/picture.png"
                body = HELLO | {"messages": [user({"type": "image_url", "image_url": {"url": url}})]}
                status, answer, _ = gateway.ask(body=body)
                assert status == 400
                assert says in answer["error"]["message"]
    finally:
        site.shutdown()
    assert Site.num_asked == 0


def test_tls(bundle_folder: Path, server: TritonServer, tmp_path: Path) -> None:
    import httpx2

    private, chain = certificate(tmp_path)
    flags = ["--ssl-keyfile", private, "--ssl-certfile", chain]
    with gateway_process(bundle_folder, server.grpc_url, *flags) as gateway:
        assert gateway.url.startswith("https://")
        trusting = httpx2.Client(verify=ssl.create_default_context(cafile=chain))
        client = gateway.client(http_client=trusting)
        assert [model.id for model in client.models.list()] == ["edge_vlm", "qwen3_vl"]
        with pytest.raises(openai.APIConnectionError):
            gateway.client().models.list()
