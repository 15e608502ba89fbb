"""What a request may be: every tensor and parameter that is wrong is named, with its value and the allowed one."""

import json
from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidInput
from contract.limits import Limits
from contract.tasks import EMBED, GENERATE
from serving.engine import Delta
from serving.requests.answer import CANCELLED, ERROR, Answer
from serving.requests.request import RequestParser
from serving.requests.store import ReuseStore
from tests.serving.reference import FINGERPRINT, IMAGE, START, Case, Reference
from tests.serving.wire import tensors


@pytest.fixture(scope="module")
def parser(reference: Reference) -> Any:
    return RequestParser(
        reference.card, Limits(max_items=4, max_prompt_tokens=400), reference.tokenizer, ReuseStore(1 << 20)
    )


@pytest.fixture
def good(cases: dict[str, Case]) -> Any:
    return arrays(tensors(cases["one image"]))


def arrays(values: Any) -> Any:
    """As the server receives them: text is an object array of bytes."""
    return {k: text(v) if isinstance(v, str) else v for k, v in values.items()}


def text(value: Any) -> Any:
    return np.array([value.encode() if isinstance(value, str) else value], dtype=object)


def sampling(**values: Any) -> Any:
    return text(json.dumps(values))


def test_unknown_parameter_names_the_allowed(parser: Any, good: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="'image_grid' is neither an input nor a parameter; inputs are input_ids"):
        parser.parse(good, {"image_grid": 1})
    with pytest.raises(InvalidInput, match="'temperatur'"):
        parser.parse(good, {"temperatur": 1})


def test_parameters_go_before_the_tensor(parser: Any, good: dict[str, Any]) -> None:
    request = parser.parse(
        good | {"sampling_parameters": sampling(max_tokens=5, top_k=3)}, {"max_tokens": 7, "stop": "x"}
    )
    assert (request.sampling.max_tokens, request.sampling.top_k, request.sampling.stop) == (7, 3, ("x",))


def test_a_task_without_tokens_has_no_longest_answer(reference: Reference, good: dict[str, Any]) -> None:
    """A server whose answers are shorter than the usual max_tokens refused every embedding that named none."""
    parser = RequestParser(
        reference.card, Limits(max_output_tokens=64), reference.tokenizer, ReuseStore(1 << 20), tasks=(GENERATE, EMBED)
    )
    usual = {name: value for name, value in good.items() if name != "sampling_parameters"}
    assert parser.parse(usual | {"task": text(EMBED)}, {}).task == EMBED
    with pytest.raises(InvalidInput, match="max_tokens is 256, up to 64 is allowed"):
        parser.parse(usual, {})


def test_text_with_one_pad_an_item(
    parser: Any, good: dict[str, Any], reference: Reference, cases: dict[str, Case]
) -> None:
    case = cases["one image"]
    prompt = "See <|vision_start|><|image_pad|><|vision_end|> what is it?"
    values = {k: v for k, v in good.items() if k != "input_ids"} | {"text_input": text(prompt)}
    request = parser.parse(values | {"exclude_input_in_output": np.array([False])}, {})
    assert request.prompt.input_ids.tolist() == case.input_ids.tolist()
    assert request.echo == prompt
    with pytest.raises(InvalidInput, match="2 image pads"):
        parser.parse(values | {"text_input": text(prompt + "<|image_pad|>")}, {})
    with pytest.raises(InvalidInput, match="26000 bytes"):
        parser.parse({"text_input": text("a" * 26_000)}, {})


def test_half_and_packed_twins(parser: Any, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    half, packed = (parser.parse(arrays(tensors(case, twin=twin)), {}).prompt for twin in ("fp16", "packed"))
    assert half.main.dtype == np.float16
    np.testing.assert_array_equal(half.main, packed.main)
    np.testing.assert_array_equal(half.deepstack, packed.deepstack)


def test_a_text_only_request_needs_no_fingerprint(parser: Any) -> None:
    assert parser.parse({"input_ids": np.array([1, 2, 3])}, {}).is_stream
    with pytest.raises(InvalidInput, match="pad tokens"):
        parser.parse({"input_ids": np.array([START, IMAGE]), "encoder_fingerprint": text(FINGERPRINT)}, {})


def test_answers(parser: Any, good: dict[str, Any]) -> None:
    asked = {f"return_{name}": np.array([True]) for name in ("num_input_tokens", "num_output_tokens", "finish_reason")}
    deltas = (Delta((5,), "a"), Delta((6, 7), "b"), Delta((8,), "c", "length"))
    streamed = Answer(parser.parse(good | asked, {}))
    out = [streamed.outputs([delta]) for delta in deltas]
    assert [o["text_output"][0] for o in out] == [b"a", b"b", b"c"]
    assert [o["finish_reason"][0] for o in out] == [b"", b"", b"length"]
    assert [int(o["num_output_tokens"][0]) for o in out] == [1, 2, 1]
    assert "error" not in out[0]
    whole = Answer(parser.parse(good | asked, {})).outputs(deltas)
    assert whole["token_ids"].tolist() == [5, 6, 7, 8]
    assert whole["text_output"][0] == b"abc"
    assert (whole["finish_reason"][0], int(whole["num_output_tokens"][0])) == (b"length", 4)


def test_keys_are_told_once(parser: Any, good: dict[str, Any]) -> None:
    answer = Answer(parser.parse(good, {}))
    assert not answer.is_begun
    told = [answer.outputs([Delta((5,), "a")], ("key",)) for _ in range(2)]
    assert ["vision_keys" in out for out in told] == [True, False]
    assert answer.is_begun


@pytest.mark.parametrize("reason", [CANCELLED, ERROR])
def test_an_early_end_says_so_unasked(parser: Any, good: dict[str, Any], reason: Any) -> None:
    good = {k: v for k, v in good.items() if k != "return_finish_reason"} | {"stream": np.array([False])}
    answer = Answer(parser.parse(good, {}))
    out = answer.outputs([Delta((5,), "a"), Delta((), "", reason)], error="[INTERNAL] x" if reason == ERROR else "")
    assert out["finish_reason"][0] == reason.encode()
    assert out["text_output"][0] == b"a"
    assert ("error" in out) == (reason == ERROR)


def test_too_many_items_are_refused_before_they_are_looked_at(parser: Any, good: dict[str, Any]) -> None:
    """The number is judged first: a million grids cost nothing, and the first bad one is not reached."""
    grids = np.zeros((1_000_000, 3), np.int64)
    with pytest.raises(InvalidInput, match="1000000 pictures and videos, 4"):
        parser.parse(good | {"image_grid_thw": grids}, {})
