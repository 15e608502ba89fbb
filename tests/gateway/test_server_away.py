"""What the gateway says of the server behind it: away, or of another model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import Door
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaving import LONG, QUESTION, sent
from tests.waiting import wait_for

HELLO = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def door(server: TritonServer) -> Iterator[Door]:
    with Door(server.grpc_url) as door:
        yield door


@pytest.fixture(scope="module")
def behind(bundle_folder: Path, door: Door) -> Iterator[Gateway]:
    """A gateway whose server can be taken away."""
    with gateway_process(bundle_folder, door.url) as gateway:
        yield gateway


def test_ready_with_the_server(behind: Gateway) -> None:
    assert behind.ask("/ready")[:2] == (200, {"status": "ready"})
    assert behind.counted("triton_ready") == 1
    assert behind.ask("/health")[:2] == (200, {"status": "ok"})


def test_another_encoder_is_not_ready(bundle_folder: Path, server: TritonServer, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(bundle_folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["card"]["encoder_fingerprint"] = "0" * 32
    (other / "manifest.json").write_text(json.dumps(manifest))
    with gateway_process(other, server.grpc_url) as gateway:
        status, answer, _ = gateway.ask("/ready")
        assert status == 503
        assert "0000" in answer["error"]["message"]
        part = picture_part(drawn(1)[0].image)
        status, answer, _ = gateway.ask(body=HELLO | {"messages": [user(part, "Describe the image.")]})
        assert status == 400
        assert "encoder_fingerprint" in answer["error"]["message"]


def test_a_server_lost_in_the_middle_and_then_away(behind: Gateway, door: Door) -> None:
    assert behind.ask("/ready")[0] == 200
    with sent(behind, {"messages": QUESTION, "stream": True} | LONG) as caller:
        answer = caller.makefile("rb")
        while not answer.readline().startswith(b"data: {"):
            pass
        door.slam()
        rest = answer.read()
    assert b'data: {"error":{' in rest  # the status was sent before
    assert b"was lost after" in rest
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    wait_for(lambda: behind.ask("/ready")[0] == 503)
    assert behind.counted("triton_ready") == 0
    assert behind.ask("/health")[0] == 200
    status, said, headers = behind.ask(body=HELLO)
    assert (status, said["error"]["type"], headers["Retry-After"]) == (503, "server_error", "1")
    assert "is Triton running" in said["error"]["message"]
    with pytest.raises(openai.InternalServerError):
        behind.client().chat.completions.create(model="edge_vlm", messages=HELLO["messages"])  # type: ignore[call-overload]
