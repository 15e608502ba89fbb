"""Embeddings handed over in shared memory: same answers, nothing sent, nothing left behind."""

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from contract.errors import InvalidInput
from edge_runtime import GrpcClient, HttpClient, Pipeline, Request, Sampling
from edge_runtime.clients.shared_regions import SMALLEST_BYTES, Region
from serving.triton.launcher import TritonServer
from tests.edge.ways import WAYS, Way, every_way, text
from tiny_model.scenes import shapes_scene

SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline) -> list[Request]:
    """Pictures of growing size; the last does not fit into the smallest region."""
    random = Random(78)
    sizes = ((96, 96), (160, 128), (1024, 768))
    return [pipeline.ask(shapes_scene(random, *size, 3).image, "Describe the image.") for size in sizes]


def ours() -> list[str]:
    """Regions of clients in this process that exist."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"edge_vlm_client_{os.getpid()}_")]


def registered(server: TritonServer) -> list[str]:
    """Regions that the server knows."""
    with urllib.request.urlopen(f"http://{server.http_url}/v2/systemsharedmemory/status", timeout=10) as answer:
        return [region["name"] for region in json.loads(answer.read())]


def fresh(server: TritonServer, request: Request) -> str:
    return text(WAYS["grpc"].ask(server.grpc_url, request, sampling=SHORT))


@every_way
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rows_do_not_travel_and_nothing_is_left(
    server: TritonServer, asked: list[Request], way: Way, precision: Any
) -> None:
    with way.open(way.url(server), shared_memory=True, precision=precision) as session:
        for request in asked:
            deltas = session.ask(request, SHORT)
            assert text(deltas) == fresh(server, request)
            assert deltas[-1].num_uploaded == 1
            assert deltas[-1].upload_bytes < 20_000
            assert registered(server) == ours()
            assert len(ours()) == 1
        assert os.stat(f"/dev/shm/{ours()[0]}").st_size >= SMALLEST_BYTES
        assert session.ask(asked[0], SHORT)[-1].num_uploaded == 0
    assert ours() == registered(server) == []


@every_way
def test_nothing_is_left_after_errors(server: TritonServer, asked: list[Request], way: Way) -> None:
    bad = replace(asked[0], encoder_fingerprint="0" * 32)
    with way.open(way.url(server), shared_memory=True) as session:
        with pytest.raises(InvalidInput, match="encoder_fingerprint"):
            session.ask(bad, SHORT)
        assert text(session.ask(asked[0], SHORT)) == fresh(server, asked[0])
    assert ours() == registered(server) == []


@pytest.mark.parametrize("name", ["grpc", "http"])
def test_leaving_early_and_closing_first(server: TritonServer, asked: list[Request], name: str) -> None:
    """The client is closed while an answer runs: its region goes with the answer."""
    way = WAYS[name]
    client = way.kind(way.url(server), shared_memory=True)
    pieces = client.stream(asked[1], Sampling(max_tokens=3000, ignore_eos=True))
    next(pieces)
    client.close()
    pieces.close()
    assert ours() == registered(server) == []


def test_threads_have_regions_of_their_own(server: TritonServer, asked: list[Request]) -> None:
    want = [fresh(server, request) for request in asked]
    for kind, url in ((GrpcClient, server.grpc_url), (HttpClient, server.http_url)):
        with kind(url, shared_memory=True) as client, ThreadPoolExecutor(6) as pool:
            said = pool.map(lambda request, c=client: text(list(c.stream(request, SHORT))), asked * 2)
            assert list(said) == want * 2
        assert ours() == registered(server) == []


@every_way
def test_a_server_elsewhere_is_refused_loudly(
    server: TritonServer, asked: list[Request], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a server finds no memory of that name."""
    monkeypatch.setattr(Region, "key", "/edge_vlm_not_here")
    with (
        way.open(way.url(server), shared_memory=True) as session,
        pytest.raises(InvalidInput, match="cannot open this machine's shared memory"),
    ):
        session.ask(asked[0], SHORT)
    assert ours() == []
