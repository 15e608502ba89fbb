"""What a server holds is not sent again; what it lost is sent again, once, without the caller noticing."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from contract.errors import InvalidInput
from contract.limits import Limits
from edge_runtime import EmbeddingCache, Encoder, GrpcClient, HttpClient, Pipeline, Request, Sampling
from edge_runtime.clients.held_keys import HeldKeys
from edge_runtime.request import learn_keys
from serving.settings import Settings
from serving.triton.launcher import TritonServer
from tests.edge.test_shared_memory import ours
from tests.edge.ways import WAYS, Session, Way, every_way, text
from tests.test_end_to_end import user
from tiny_model.clips import moving_clip
from tiny_model.scenes import shapes_scene

SHORT = Sampling(max_tokens=12)
SMALL = 20_000  # bytes of a question; the smallest picture here has more


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    random = Random(77)
    return [shapes_scene(random, 160, 128, 3).image for _ in range(3)]


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline, pictures: list[Any]) -> list[Request]:
    """Three pictures, one question each."""
    return [pipeline.ask(picture, "Describe the image.") for picture in pictures]


def fresh(server: TritonServer, request: Request, **how: Any) -> str:
    """The answer to a client that knows nothing."""
    return text(WAYS["grpc"].ask(server.grpc_url, request, sampling=SHORT, **how))


def facts(session: Session, request: Request) -> tuple[str, int, bool]:
    """The answer, the pictures that were sent for it, and whether little was."""
    deltas = session.ask(request, SHORT)
    return text(deltas), deltas[-1].num_uploaded, deltas[-1].upload_bytes < SMALL


@every_way
def test_the_second_time_only_the_key_travels(server: TritonServer, asked: list[Request], way: Way) -> None:
    want = fresh(server, asked[0])
    with way.open(way.url(server)) as session:
        assert facts(session, asked[0]) == (want, 1, False)
        assert facts(session, asked[0]) == (want, 0, True)


@every_way
def test_only_what_is_new_travels(server: TritonServer, pipeline: Pipeline, pictures: list[Any], way: Way) -> None:
    """Two pictures and a video mixed, the middle one known: rows and grids of the others stay in order."""
    clip = moving_clip(Random(4), 96, 96, 3, 2).frames
    requests = [
        pipeline.request([user(clip, "Which way does the shape move?")]),
        pipeline.request([user(pictures[0], clip, pictures[1], "What do you see?")]),
        pipeline.request([user(pictures[1], pictures[2], clip, pictures[0], "What do you see?")]),
    ]
    with way.open(way.url(server)) as session:
        said = [facts(session, request) for request in requests]
    assert [num for _, num, _ in said] == [1, 2, 1]
    assert [answer for answer, _, _ in said] == [fresh(server, request) for request in requests]


@every_way
@pytest.mark.parametrize("precision", ["fp32", "int8", "int8c", "int4", "ecq"])
def test_every_precision_travels_and_is_kept_for_itself(
    server: TritonServer, asked: list[Request], way: Way, precision: Any
) -> None:
    with way.open(way.url(server), precision=precision) as session:
        first = session.ask(asked[0], SHORT)
        assert text(first) == fresh(server, asked[0])  # this picture's answer survives int8
        assert facts(session, asked[0]) == (text(first), 0, True)
    with way.open(way.url(server)) as half:
        sent = half.ask(asked[0], SHORT)[-1].upload_bytes
    ratio = first[-1].upload_bytes / sent
    expected = {"fp32": 2, "int8": 0.5, "int8c": 0.5, "int4": 0.25, "ecq": 0.21}
    assert ratio == pytest.approx(expected[precision], rel=0.15)


@every_way
def test_infer_reuses_too(server: TritonServer, asked: list[Request], way: Way) -> None:
    if not way.is_http:
        return
    with way.open(way.url(server)) as session:
        said = [session.call("infer", asked[0], SHORT) for _ in range(2)]
    assert [delta.num_uploaded for delta in said] == [1, 0]
    assert [delta.text for delta in said] == [fresh(server, asked[0])] * 2
    assert said[1].upload_bytes < SMALL < said[0].upload_bytes


@every_way
@pytest.mark.parametrize("precision", ["fp16", "fp32", "int8", "int8c", "int4", "ecq"])
def test_both_sides_name_items_alike(
    server: TritonServer, pipeline: Pipeline, pictures: list[Any], way: Way, precision: Any
) -> None:
    """A picture, a clip and the picture again, mixed: the server's keys are the hashes made here."""
    clip = moving_clip(Random(4), 96, 96, 3, 2).frames
    request = pipeline.request([user(pictures[0], clip, pictures[0], "What do you see?")])
    ours = request.keys(precision)
    assert len(set(ours)) == 2
    unhashed = replace(request, items=tuple(replace(item, wire_keys={}) for item in request.items))
    deltas = way.ask(way.url(server), unhashed, sampling=SHORT, precision=precision)
    assert list(deltas[0].vision_keys) == ours
    assert [item.wire_keys[item.form(precision)] for item in unhashed.items] == ours


def test_threads_share_what_is_held(server: TritonServer, asked: list[Request]) -> None:
    want = [fresh(server, request) for request in asked]
    with GrpcClient(server.grpc_url) as client, ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            said = list(pool.map(lambda request: list(client.stream(request, SHORT)), asked * 2))
            assert [text(deltas) for deltas in said] == want * 2
    assert [deltas[-1].num_uploaded for deltas in said] == [0] * 6


@pytest.fixture(scope="module")
def forgetful(language_folder: Path, asked: list[Request]) -> Any:
    """A server that keeps one of the pictures, not two."""
    (item,) = asked[0].items
    size = 2 * (item.main.size + item.deepstack.size)
    limits = Limits(max_reuse_bytes=int(1.5 * size))
    with TritonServer(Settings(model=str(language_folder), num_threads=1, limits=limits)) as server:
        yield server


@every_way
def test_what_was_pushed_out_is_sent_again(forgetful: TritonServer, asked: list[Request], way: Way) -> None:
    with way.open(way.url(forgetful)) as session:
        said = [facts(session, asked[place]) for place in (0, 1, 0, 0)]
    assert [num for _, num, _ in said] == [1, 1, 1, 0]
    want = [fresh(forgetful, asked[place]) for place in (0, 1)]
    assert [answer for answer, _, _ in said] == [want[0], want[1], want[0], want[0]]


def test_a_restarted_server_is_sent_everything_again(language_folder: Path, pipeline: Pipeline) -> None:
    """Keys are gone, registered memory too. A picture for each client, or they would upload for each other."""
    settings, random, sessions = Settings(model=str(language_folder), num_threads=1), Random(79), []
    cases = [(way, is_shared) for way in WAYS.values() for is_shared in (False, True)]
    requests = [pipeline.ask(shapes_scene(random, 160, 128, 3).image, "Describe the image.") for _ in cases]
    with TritonServer(settings) as server:
        ports = server.ports
        for (way, is_shared), request in zip(cases, requests, strict=True):
            session = way.open(way.url(server), shared_memory=is_shared)
            want = facts(session, request)
            assert want[1:] == (1, is_shared)
            assert facts(session, request) == (want[0], 0, True)
            sessions.append((session, request, want))
    with TritonServer(settings, ports):
        for session, request, want in sessions:
            assert facts(session, request) == want
            assert facts(session, request) == (want[0], 0, True)
    for session, _, _ in sessions:  # the server is away
        session.__exit__()
    assert ours() == []


def test_a_server_that_keeps_nothing(language_folder: Path, asked: list[Request]) -> None:
    """gRPC and infer send everything each time; an HTTP stream has no way to, and says so."""
    settings = Settings(model=str(language_folder), num_threads=1, limits=Limits(max_reuse_bytes=0))
    with TritonServer(settings) as server:
        with WAYS["grpc"].open(server.grpc_url) as session:
            want = facts(session, asked[0])
            assert facts(session, asked[0]) == want
            assert want[1] == 1
        with HttpClient(server.http_url) as client:
            assert [client.infer(asked[0], SHORT).text for _ in range(2)] == [want[0]] * 2
            with pytest.raises(InvalidInput, match="max_reuse_bytes is 0"):
                list(client.stream(asked[0], SHORT))


def test_a_key_is_hashed_once_for_all_turns(pipeline: Pipeline, tmp_path: Path, pictures: list[Any]) -> None:
    """The rows in the cache carry it, so it outlives requests."""
    kept = Pipeline(Encoder.from_bundle(pipeline.encoder.bundle, threads=1), cache=EmbeddingCache())
    first = kept.ask(pictures[0], "One?")
    key = first.keys("fp16")
    again = kept.ask(pictures[0], "Two?")
    assert again.items[0].wire_keys is first.items[0].wire_keys
    assert again.keys("fp16") == key
    assert again.keys("int8") != key
    assert kept.ask(pictures[1], "One?").keys("fp16") != key


def test_held_keys_are_bounded() -> None:
    held = HeldKeys(3)
    held.add(["a", "b", "", "c"])
    held.add(["a"])
    held.add(["d"])
    assert list(held) == ["c", "a", "d"]
    held.forget(["a", "x"])
    assert "a" not in held
    threads = [threading.Thread(target=held.add, args=([str(i)],)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 3


def test_what_a_server_did_not_keep_has_no_name(asked: list[Request]) -> None:
    """It answers an empty key for a picture larger than its memory."""
    items = [replace(item, wire_keys={}) for item in asked[0].items]
    learn_keys(items, [""], "fp16")
    assert items[0].wire_keys == {}
    learn_keys(items, ["a", "b"], "fp16")  # not ours
    assert items[0].wire_keys == {}
    learn_keys(items, ["a"], "fp16")
    assert items[0].key("f", "fp16") == "a"
