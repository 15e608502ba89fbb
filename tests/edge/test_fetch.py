"""Pictures and videos behind URLs, from a real HTTP server on the loopback."""

import io
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from contract.errors import MediaError
from edge_runtime import Pipeline
from edge_runtime.media import fetch
from edge_runtime.media.fetch import Fetcher

PICTURE = Image.effect_noise((96, 128), 60).convert("RGB")
OPEN = Fetcher(allow_private=True, timeout_s=5)


def png() -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    return file.getvalue()


class Host(BaseHTTPRequestHandler):
    """A web host with every bad habit."""

    def do_GET(self) -> None:
        body = png()
        if self.path == "/picture.png?size=1":
            self.answer(200, body)
        elif self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path == "/cut":
            self.answer(200, body[:500], length=len(body))
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(bytes(1 << 16))
        elif self.path in ("/slow-head", "/slow-body"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if self.path == "/slow-body" else b""))
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A client that leaves is what these tests are about."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def user(part: dict[str, object]) -> list[dict[str, object]]:
    return [{"role": "user", "content": [part]}]


def test_a_picture_is_read_also_behind_redirects(pipeline: Pipeline, host: str) -> None:
    open_pipeline = Pipeline(pipeline.encoder, fetch=OPEN)
    (want,) = pipeline.items(user({"type": "image", "image": png()}))
    url = f"{host}/picture.png?size=1"
    for part in (
        {"type": "image", "image": url},
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": f"{host}/to?{url}"}},
        {"type": "image_url", "image_url": f"{host}/to?/to?/picture.png?size=1"},
    ):
        (item,) = open_pipeline.items(user(part))
        np.testing.assert_array_equal(item.patches, want.patches)


def test_fetching_is_off_unless_allowed(pipeline: Pipeline, host: str) -> None:
    with pytest.raises(MediaError, match="fetching is off"):
        pipeline.items(user({"type": "image", "image": f"{host}/picture.png?size=1"}))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/none", "answers 404"),
        ("/cut", "sent 500 of"),
        ("/endless", "more than 50000 bytes"),
        ("/slow-head", "longer than 0.5 s"),
        ("/slow-body", "longer than 0.5 s"),
        ("/to?file:///etc/passwd", "http:// or https://"),
        ("/to?ftp://127.0.0.1/x", "http:// or https://"),
        ("/to?http://other.invalid/x", "allowed_media_domains are 127.0.0.1"),
    ],
)
def test_what_a_host_may_not_do(host: str, path: str, says: str) -> None:
    fetch = Fetcher(50_000, 0.5, frozenset({"127.0.0.1"}), allow_private=True)
    started = time.monotonic()
    with pytest.raises(MediaError, match=says):
        fetch(host + path)
    assert time.monotonic() - started < 15  # the slow ones never end


def test_a_large_body_is_refused_by_its_announced_size(host: str) -> None:
    with pytest.raises(MediaError, match="up to 1000 are fetched"):
        Fetcher(1000, allow_private=True)(f"{host}/picture.png?size=1")


def test_redirects_end(host: str) -> None:
    path = "/picture.png?size=1"
    for _ in range(6):
        path = f"/to?{path}"
    with pytest.raises(MediaError, match="more than 5 times"):
        OPEN(host + path)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "0.0.0.0"])
def test_private_addresses_are_refused(name: str) -> None:
    with pytest.raises(MediaError, match=r"not a public address|cannot be fetched: .*family"):
        Fetcher(timeout_s=2)(f"http://{name}:9/x")


@pytest.mark.parametrize("place", ["127.0.0.2", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]"])
def test_a_redirect_to_a_private_address_is_refused(host: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host passes for a public one here; where it leads is judged anew."""
    judged = fetch._is_public
    monkeypatch.setattr(fetch, "_is_public", lambda address: address == "127.0.0.1" or judged(address))
    assert Fetcher(timeout_s=5)(f"{host}/to?/picture.png?size=1") == png()
    with pytest.raises(MediaError, match="not a public address"):
        Fetcher(timeout_s=5)(f"{host}/to?http://{place}:9/x")


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("3fff::1", False),
        ("3fff:fff:ffff::", False),
        ("4000::1", False),
        ("3ffe:ffff::1", True),
        ("2620:4f:8000::53", False),
        ("2620:4f:8001::53", True),
        ("192.88.99.1", False),
        ("192.88.98.1", True),
        ("::ffff:192.88.99.1", False),
        ("64:ff9b::c058:6301", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::", True),
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:0:7f00:1", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
    ],
)
def test_an_address_inside_an_address_counts(address: str, is_public: bool) -> None:
    assert fetch._is_public(address) is is_public


def test_nobody_there(host: str) -> None:
    with pytest.raises(MediaError, match=r"cannot be fetched: .*refused"):
        OPEN("http://127.0.0.1:9/picture.png")
    with pytest.raises(MediaError, match="cannot be fetched"):
        OPEN(host.replace("http", "https") + "/x")  # no TLS spoken there


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tls")
    pair = ["-keyout", str(folder / "k.pem"), "-out", str(folder / "c.pem")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        *pair,
    ]
    subprocess.run(command, check=True, capture_output=True)
    with Quiet(("127.0.0.1", 0), Host) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "c.pem", folder / "k.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(MediaError, match="certificate"):
            OPEN(f"https://127.0.0.1:{server.server_port}/picture.png?size=1")
        server.shutdown()


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, released = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        asked.set()
        released.wait(30)
        return []

    monkeypatch.setattr(fetch.socket, "getaddrinfo", silent)
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"longer than 0\.3 s"):
        Fetcher(timeout_s=0.3)("http://example.org/picture.png")
    assert asked.is_set()
    assert time.monotonic() - started < 10
    released.set()
