"""Pictures behind URLs, from a real site on this machine (which a gateway process refuses, so it is asked for here)."""

import asyncio
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edge_runtime import Fetcher, Pipeline, Request
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.messages import read_messages
from edge_runtime.gateway.preparation import Preparation
from edge_runtime.gateway.settings import Settings
from tests.gateway.drawings import drawn, user

PICTURE = drawn(1)[0].image


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        file = io.BytesIO()
        PICTURE.save(file, "PNG")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(file.getvalue())


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def prepared(pipeline: Pipeline, settings: Settings, *urls: str) -> Request:
    messages: list[dict[str, Any]] = [user(*[{"type": "image_url", "image_url": {"url": url}} for url in urls], "x")]
    preparation = Preparation(pipeline, settings)
    try:
        return asyncio.run(preparation.request(read_messages(messages, settings), None)).request
    finally:
        preparation.close()


def test_a_picture_behind_a_url(site: str, pipeline: Pipeline) -> None:
    fetching = Pipeline(pipeline.encoder, fetch=Fetcher(allow_private=True))
    request = prepared(fetching, Settings(), f"{site}/a.png", f"{site}/b.png")
    content = [*[{"type": "image", "image": PICTURE}] * 2, {"type": "text", "text": "x"}]
    expected = pipeline.request([{"role": "user", "content": content}])
    assert request.input_ids.tolist() == expected.input_ids.tolist()
    assert (request.main == expected.main).all()


def test_what_urls_lead_to_is_bounded(site: str, pipeline: Pipeline) -> None:
    fetching = Pipeline(pipeline.encoder, fetch=Fetcher(allow_private=True))
    with pytest.raises(Failure, match="lead to more than 3000 bytes") as refused:
        prepared(fetching, Settings(max_body_bytes=3000), *[f"{site}/{name}.png" for name in range(5)])
    assert refused.value.status == 400


def test_no_file_without_a_folder(pipeline: Pipeline) -> None:
    """Also where a pipeline of one's own would read any file."""
    assert pipeline.access.allowed_local_media_path is None
    with pytest.raises(Failure, match="allowed-local-media-path"):
        prepared(pipeline, Settings(), "file:///etc/passwd")


def test_no_url_without_hosts_and_a_hint_that_the_gateway_has(pipeline: Pipeline) -> None:
    with pytest.raises(Failure, match="allowed-media-domains") as refused:
        prepared(pipeline, Settings(), "https://pictures.example/one.png")
    assert "--fetch" not in str(refused.value)
