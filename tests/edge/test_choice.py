"""precision="auto": what travels by the uplink, the user's floor, what the server knows and what it holds."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidInput
from edge_runtime import GrpcClient, Pipeline, Request, Sampling
from edge_runtime.clients import choice
from edge_runtime.clients.choice import AUTO, QUALITIES, Uplink, choose, num_bytes, published
from edge_runtime.clients.held_keys import HeldKeys
from serving.triton.launcher import TritonServer
from tests.edge.ways import Way, every_way, text
from tiny_model.scenes import render


@pytest.fixture(scope="module")
def request_(pipeline: Pipeline) -> Request:
    return pipeline.ask(render((), 320, 320, (255, 255, 255), 1), "What is there?")


def uplink(bytes_per_s: float | None) -> Uplink:
    found = Uplink()
    if bytes_per_s is not None:
        found.add(1 << 20, (1 << 20) / bytes_per_s)
    return found


def chosen(request: Request, quality: Any, bytes_per_s: float | None, **server: str) -> str:
    names = request.items[0].numbers.names if request.items[0].numbers is not None else {}
    known = {"fp16": "fp16", "int8": "int8", **names, **server}
    known = {name: value for name, value in known.items() if value}
    return choose(request, known, quality, 0.5, uplink(bytes_per_s), HeldKeys())


def test_the_most_exact_that_travels_in_time(request_: Request) -> None:
    size = num_bytes(request_, "fp16")
    expected = {2.1: "fp16", 1.9: "int8c", 0.9: "int4", 0.45: "ecq", 0.001: "ecq"}  # times the bytes of fp16 a second
    assert {speed: chosen(request_, "least", speed * size) for speed in expected} == expected
    assert chosen(request_, "close", 0.001 * size) == "int8c"
    assert chosen(request_, "exact", 0.001 * size) == "fp16"


@pytest.mark.parametrize("quality", QUALITIES)
def test_before_the_first_upload_the_smallest_of_the_floor(request_: Request, quality: Any) -> None:
    expected = {"exact": "fp16", "close": "int8c", "small": "ecq", "least": "ecq"}
    assert chosen(request_, quality, None) == expected[quality]


def test_other_numbers_fall_back_to_int8_then_fp16(request_: Request) -> None:
    other = {"int8c": "int8c:0123456789abcdef", "int4": "int4:0123456789abcdef", "ecq": ""}
    assert chosen(request_, "least", 1, **other) == "int8"
    assert chosen(request_, "least", 1, **other, int8="") == "fp16"


def test_what_is_held_is_not_sent_in_another_precision(request_: Request) -> None:
    (item,) = request_.items
    held = HeldKeys()
    held.add([item.key("f", "int8")])
    assert choose(request_, {"fp16": "fp16", "int8": "int8"}, "close", 0.5, uplink(1e12), held) == "int8"


def test_small_uploads_say_nothing_and_the_median_does() -> None:
    found = Uplink()
    found.add(1000, 1e-9)
    assert found.bytes_per_s is None
    for seconds in (1.0, 2.0, 100.0, 4.0, 5.0, 5.0):
        found.add(1_000_000, seconds)
    assert found.bytes_per_s == 200_000  # of the last five


def test_a_server_without_codecs_is_known_by_its_types() -> None:
    assert published({"embedding_datatypes": "FP16,FP32,INT8"}) == {"fp16": "fp16", "fp32": "fp32", "int8": "int8"}
    assert published({}) == {"fp16": "fp16"}


@pytest.mark.parametrize("wrong", [{"quality": "best"}, {"budget_s": 0}, {"budget_s": np.inf}, {"precision": "int5"}])
def test_wrong_wishes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        GrpcClient("127.0.0.1:1", **wrong)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What clients have written into the log."""
    return [one.getMessage() for one in caplog.records if one.name == "edge_runtime.clients.connection"]


OTHER = "ecq:0123456789abcdef"


@pytest.mark.parametrize(
    ("asked", "published", "travels", "said"),
    [
        ("ecq", f"fp16 fp32 int8 {OTHER}", "int8", f"this device has ecq:[0-9a-f]{{16}}, host:1 {OTHER}: int8 travels"),
        ("ecq", f"fp16 fp32 {OTHER}", "fp16", f"this device has ecq:[0-9a-f]{{16}}, host:1 {OTHER}: fp16 travels"),
        ("int8c", "fp16 int8", "int8", "this device has int8c:[0-9a-f]{16}, host:1 no int8c: int8 travels"),
        ("klt", "fp16 int8 klt:0123456789abcdef", "int8", "this device has no klt, host:1 klt:0123456789abcdef: int8"),
        ("int8", "fp16 fp32", "fp16", "precision is 'int8', which host:1 does not take: fp16 travels"),
        ("int8", "fp16 int8", "int8", ""),
        ("fp32", "fp16 fp32", "fp32", ""),
    ],
)
def test_a_choice_that_the_server_does_not_take_falls_back_aloud(
    request_: Request, caplog: pytest.LogCaptureFixture, asked: Any, published: str, travels: str, said: str
) -> None:
    """To int8, then to fp16, and the log says once what travels, and why."""
    client = GrpcClient("host:1", precision=asked)
    client.note({"embedding_codecs": published})
    first, second = client.prepared(request_), client.prepared(request_)
    assert first[1:] == second[1:]
    assert first[1] == travels
    assert re.search(said, first[2])
    assert bool(first[2]) == bool(said)
    assert logged(caplog) == ([first[2]] if said else [])


def test_a_codec_of_the_server_keeps_its_name(request_: Request) -> None:
    """And a device without numbers has none to send."""
    names = request_.items[0].numbers.names  # type: ignore[union-attr]
    bare = replace(request_, items=tuple(replace(item, numbers=None) for item in request_.items))
    client = GrpcClient("host:1", precision="int4")
    client.note({"embedding_codecs": f"fp16 int8 {names['int4']}"})
    assert client.prepared(request_)[1:] == ("int4", "")
    assert client.prepared(bare)[1] == "int8"


@pytest.mark.parametrize(("asked", "published"), [("fp32", "fp16 int8"), ("fp16", "fp32"), ("ecq", "fp32")])
def test_nothing_less_exact_travels_unasked(request_: Request, asked: Any, published: str) -> None:
    client = GrpcClient("host:1", precision=asked)
    client.note({"embedding_codecs": published})
    with pytest.raises(InvalidInput, match=f"precision is '{asked}', host:1 accepts {published.replace(' ', ', ')}"):
        client.prepared(request_)


@pytest.mark.parametrize("is_known", [True, False])
@every_way
def test_a_server_of_other_numbers_answers_in_int8(
    server: TritonServer, request_: Request, way: Way, caplog: pytest.LogCaptureFixture, *, is_known: bool
) -> None:
    """Also where another server has taken the place of the one that published the device's numbers."""
    items = []
    for item in request_.items:
        assert item.numbers is not None
        items.append(replace(item, numbers=replace(item.numbers, ecq_steps=item.numbers.ecq_steps * np.float32(2))))
    other = replace(request_, items=tuple(items))
    codec = other.items[0].codec("ecq")
    with way.open(way.url(server), precision="int8") as session:
        expected = text(session.ask(request_, Sampling(max_tokens=8)))
    with way.open(way.url(server), precision="ecq") as session:
        if not is_known:
            session.client.note({"embedding_codecs": f"fp16 int8 {codec}", "rows": "kept copied"})
        first, second = (session.ask(other, Sampling(max_tokens=8)) for _ in range(2))
    assert text(first) == text(second) == expected
    for answer in (first, second):
        assert answer[-1].precision == "int8"
        assert codec in answer[-1].fallback
        assert request_.items[0].codec("ecq") in answer[-1].fallback
    assert second[-1].num_uploaded == 0
    assert logged(caplog) == [first[-1].fallback]


@every_way
def test_auto_answers_and_uploads_once(
    server: TritonServer, request_: Request, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LEAST_BYTES", 10_000)  # the bundled model's pictures are small
    with way.open(way.url(server), precision=AUTO, quality="small") as session:
        first, second = (session.ask(request_, Sampling(max_tokens=8)) for _ in range(2))
    assert (first[-1].precision, second[-1].precision) == ("ecq", "ecq")
    assert (first[-1].num_uploaded, second[-1].num_uploaded) == (1, 0)
    assert text(first) == text(second) != ""
    with way.open(way.url(server), precision=AUTO, quality="exact") as session:
        last = session.ask(request_, Sampling(max_tokens=8))[-1]
        assert (last.precision, last.num_uploaded) == ("fp16", 1)
        assert 0 < session.client.uplink.bytes_per_s < 1e11
