"""Reuse on the real server: it keeps items by content, under keys that both machines compute, and clients ask about them again."""

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from contract.codecs import ecq
from contract.codecs.codec import decode
from contract.codecs.int8 import dequantise, quantise
from contract.errors import InvalidInput, NotFound, from_wire
from contract.items import ItemTensors, item_key, prompt_items
from contract.limits import Limits
from contract.names import MODEL, UNARY_MODEL
from serving.requests.request import RequestParser
from serving.requests.store import ReuseStore
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.scrape import at_rest
from tests.serving.reference import FINGERPRINT, Case, Reference
from tests.serving.test_triton import post
from tests.serving.wire import httpclient, stream, tensors, unary

GRIDS = ("image_grid_thw", "video_grid_thw")


def names(*keys: str) -> np.ndarray:
    return np.array([key.encode() for key in keys], object)


def answered_keys(result: Any) -> list[str]:
    return [key.decode() for key in result.as_numpy("vision_keys").tolist()]


def tokens(result: Any) -> tuple[int, ...]:
    return tuple(result.as_numpy("token_ids").tolist())


def expected_keys(reference: Reference, case: Case) -> list[str]:
    items = prompt_items(case.input_ids, case.image_grid_thw, case.video_grid_thw, reference.card)
    return [item_key(FINGERPRINT, item, case.main[item.rows], case.deepstack[:, item.rows]) for item in items]


def keyed(case: Case, keys: list[str]) -> dict[str, Any]:
    """The question without any tensor of its items."""
    kept = ("input_ids", "sampling_parameters", "return_finish_reason")
    return {name: value for name, value in tensors(case).items() if name in kept} | {"vision_keys": names(*keys)}


@pytest.mark.parametrize("name", ["one image", "several sizes", "video", "mixed"])
def test_an_answer_names_its_items_and_keys_give_the_same_answer(
    server: TritonServer, cases: dict[str, Case], reference: Reference, name: str
) -> None:
    case = cases[name]
    keys = answered_keys(unary(server.http_url, tensors(case), httpclient))
    assert keys == expected_keys(reference, case)
    assert stream(server.grpc_url, keyed(case, keys))[0] == case.expected
    assert tokens(unary(server.http_url, keyed(case, keys), httpclient)) == case.expected


def test_a_held_item_is_decoded_once_a_question(
    cases: dict[str, Case], reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it stays in the store as it travelled."""
    case, store, decoded = cases["one image"], ReuseStore(1 << 20), list[str]()
    stream, steps = ecq.encode(case.main, case.deepstack, reference.numbers)
    (grid,) = case.image_grid_thw.tolist()
    (key,) = store.keep([ItemTensors(FINGERPRINT, False, tuple(grid), (stream, steps), reference.numbers.names["ecq"])])
    parser = RequestParser(reference.card, Limits(), reference.tokenizer, store, reference.numbers)

    def counted(arrays: Any, codec: str, numbers: Any) -> Any:
        decoded.append(codec)
        return decode(arrays, codec, numbers)

    monkeypatch.setattr("contract.items.decode", counted)
    asked = {name: value for name, value in keyed(case, [key]).items() if isinstance(value, np.ndarray)}
    for question in (1, 2):
        prompt = parser.parse(asked, {}).prompt
        assert decoded == [reference.numbers.names["ecq"]] * question
        np.testing.assert_array_equal(prompt.main, ecq.decode(stream, steps, reference.numbers)[0])
        assert store.find(key).num_bytes == stream.nbytes + steps.nbytes


def test_held_and_sent_items_mix_in_prompt_order(
    server: TritonServer, cases: dict[str, Case], reference: Reference
) -> None:
    """Every subset of a prompt of two pictures around a video may travel."""
    case = cases["mixed"]
    keys = answered_keys(unary(server.grpc_url, tensors(case)))
    items = prompt_items(case.input_ids, case.image_grid_thw, case.video_grid_thw, reference.card)
    for chosen in range(1, 8):
        sent = [item for place, item in enumerate(items) if chosen >> place & 1]
        rows = np.concatenate([np.arange(item.rows.start, item.rows.stop) for item in sent])
        values = keyed(case, ["" if item in sent else key for key, item in zip(keys, items, strict=True)])
        values |= {
            "vision_embeddings_fp32": case.main[rows],
            "deepstack_embeddings_fp32": case.deepstack[:, rows],
            "encoder_fingerprint": FINGERPRINT,
        }
        for name, is_video in zip(GRIDS, (False, True), strict=True):
            if grids := [item.grid_thw for item in sent if item.is_video == is_video]:
                values[name] = np.array(grids)
        result = unary(server.grpc_url, values)
        assert tokens(result) == case.expected
        assert answered_keys(result) == keys


def test_keeping_computes_nothing_and_needs_no_prompt(
    server: TritonServer, cases: dict[str, Case], reference: Reference
) -> None:
    case = reference.case("kept", "Look ", (1, 6, 8), " and ", (2, 6, 4), " now", seed=31)
    before = at_rest(server)["input_tokens_total"]
    values = tensors(case, sampling={"max_tokens": 0})
    del values["input_ids"]
    result = unary(server.http_url, values, httpclient)
    assert answered_keys(result) == expected_keys(reference, case)
    assert tokens(result) == ()
    assert result.as_numpy("finish_reason")[0] == b"length"
    assert stream(server.grpc_url, keyed(case, answered_keys(result)))[0] == case.expected
    assert at_rest(server)["input_tokens_total"] == before + case.input_ids.size


def test_a_key_can_be_asked_for_alone(server: TritonServer, cases: dict[str, Case]) -> None:
    """Is it still held? No prompt, no tensors, plain JSON; the answer says so, and the item counts as used."""
    keys = answered_keys(unary(server.grpc_url, tensors(cases["several sizes"])))
    status, body = post(server, f"{UNARY_MODEL}/generate", vision_keys=keys, max_tokens=0)
    assert (status, json.loads(body)["vision_keys"]) == (200, keys)
    status, body = post(server, f"{UNARY_MODEL}/generate", vision_keys=[*keys, "0" * 64], max_tokens=0)
    assert (status, "[NOT_FOUND]" in body) == (400, True)


@pytest.mark.parametrize("door", [f"{UNARY_MODEL}/generate", f"{MODEL}/generate_stream"])
def test_plain_json_asks_by_key(server: TritonServer, cases: dict[str, Case], reference: Reference, door: str) -> None:
    """The grids come from the store, so a question is text, a key, and nothing else."""
    case = cases["one image"]
    key = answered_keys(unary(server.grpc_url, tensors(case)))[0]
    text = "See <|vision_start|><|image_pad|><|vision_end|> what is it?"
    for asked in ({"text_input": text}, {"input_ids": case.input_ids.tolist()}):
        status, body = post(server, door, vision_keys=key, max_tokens=len(case.expected), **asked)
        assert status == 200, body
        events = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line]
        found = [event["token_ids"] for event in events]
        assert tuple(found if len(found) > 1 else found[0]) == case.expected
        assert events[0]["vision_keys"] == key
    status, body = post(server, door, vision_keys="0" * 64, text_input=text)
    assert (status, isinstance(from_wire(body), NotFound)) == (400, True)


def test_quantised_rows_answer_as_what_they_stand_for(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["mixed"]
    values, scales = quantise(case.main, case.deepstack)
    sent = {k: v for k, v in tensors(case).items() if not k.endswith("_fp32")}
    quantised = unary(server.grpc_url, sent | {"vision_embeddings_q": values, "vision_scales": scales})
    main, deepstack = dequantise(values, scales)
    plain = unary(server.grpc_url, sent | {"vision_embeddings_fp32": main, "deepstack_embeddings_fp32": deepstack})
    assert tokens(quantised) == tokens(plain)
    assert answered_keys(quantised) != answered_keys(plain)  # a name of what travelled
    assert tokens(unary(server.grpc_url, keyed(case, answered_keys(quantised)))) == tokens(plain)


def test_one_item_has_one_name_packed_or_not(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    first, second = (answered_keys(unary(server.grpc_url, tensors(case, twin=twin))) for twin in ("fp16", "packed"))
    assert first == second


def test_unknown_keys_are_not_found(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    with pytest.raises(InferenceServerException) as absent:
        stream(server.grpc_url, keyed(case, ["f" * 64]))
    assert isinstance(from_wire(absent.value.message()), NotFound)
    assert "f" * 64 in absent.value.message()
    with pytest.raises(InferenceServerException) as over_http:
        unary(server.http_url, keyed(case, ["f" * 64]), httpclient)
    assert over_http.value.status() == "404"
    assert stream(server.grpc_url, tensors(case))[0] == case.expected


def test_metrics_count_what_keys_saved(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["several sizes"]
    keys = answered_keys(unary(server.grpc_url, tensors(case)))
    before = at_rest(server)
    unary(server.grpc_url, keyed(case, keys))
    after = at_rest(server)
    assert after["reuse_hits_total"] == before["reuse_hits_total"] + 3
    saved = after["reuse_saved_bytes_total"] - before["reuse_saved_bytes_total"]
    assert saved == case.main.nbytes + case.deepstack.nbytes
    assert saved <= after["reuse_bytes"] <= Limits.max_reuse_bytes


def test_a_server_that_keeps_nothing_says_so(reference: Reference, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    with TritonServer(settings(reference.language, Limits(max_reuse_bytes=0), dtype="fp32")) as small:
        assert answered_keys(unary(small.grpc_url, tensors(case))) == [""]
        with pytest.raises(InferenceServerException) as refused:
            unary(small.grpc_url, tensors(case, sampling={"max_tokens": 0}))
        assert isinstance(from_wire(refused.value.message()), InvalidInput)
