"""precision="auto": what travels by the uplink, the user's floor, what the server knows and what it holds."""

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


def test_other_numbers_are_named_where_the_codec_was_asked_for(request_: Request) -> None:
    client = GrpcClient("127.0.0.1:1", precision="ecq")
    client.check({"embedding_codecs": "fp16 int8 ecq:0123456789abcdef"})
    with pytest.raises(InvalidInput, match=r"ecq:.* here and ecq:0123456789abcdef"):
        client.prepared(request_)


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
