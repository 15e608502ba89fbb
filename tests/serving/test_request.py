"""What a request may be: every tensor and parameter that is wrong is named, with its value and the allowed one."""

import json

import numpy as np
import pytest

from contract.errors import InvalidInput
from contract.limits import Limits
from serving.answer import CANCELLED, ERROR, Answer
from serving.engine import Delta
from serving.request import RequestParser
from serving.store import ReuseStore
from tests.serving.reference import FINGERPRINT, IMAGE, START
from tests.serving.wire import tensors


@pytest.fixture(scope="module")
def parser(reference):
    return RequestParser(
        reference.card, Limits(max_items=4, max_prompt_tokens=400), reference.tokenizer, ReuseStore(1 << 20)
    )


@pytest.fixture
def good(cases):
    return arrays(tensors(cases["one image"]))


def arrays(values):
    """As the server receives them: text is an object array of bytes."""
    return {k: text(v) if isinstance(v, str) else v for k, v in values.items()}


def text(value):
    return np.array([value.encode() if isinstance(value, str) else value], dtype=object)


def sampling(**values):
    return text(json.dumps(values))


WRONG = {
    "no ids": ({"input_ids": None}, "neither of input_ids and text_input"),
    "ids and text": ({"text_input": text("hi")}, "both of input_ids and text_input"),
    "text no UTF-8": ({"input_ids": None, "text_input": text(b"\xff\xfe")}, "text_input is no UTF-8"),
    "rank 0": ({"input_ids": np.array(3)}, r"input_ids has shape \[\], 1 dimensions"),
    "empty ids": ({"input_ids": np.zeros(0, np.int64)}, "input_ids is empty"),
    "empty grid": ({"image_grid_thw": np.zeros((0, 3), np.int64)}, "image_grid_thw is empty"),
    "id too large": ({"input_ids": np.array([1, 272])}, r"input_ids\[1\] is 272, ids from 0 to 271"),
    "id negative": ({"input_ids": np.array([-1])}, r"input_ids\[0\] is -1"),
    "too many tokens": ({"input_ids": np.ones(401, np.int64)}, "401 tokens, 400 are allowed"),
    "no grid": ({"image_grid_thw": None}, "pad tokens|rows"),
    "odd grid": ({"image_grid_thw": np.array([[1, 7, 12]])}, "multiples of 2"),
    "absurd grid": ({"image_grid_thw": np.array([[1, 2**62, 4]])}, "sides from 1 to"),
    "too many items": ({"image_grid_thw": np.ones((5, 3), np.int64) * [1, 2, 2]}, "5 pictures and videos, 4"),
    "no fingerprint": ({"encoder_fingerprint": None}, "encoder_fingerprint is missing"),
    "other fingerprint": ({"encoder_fingerprint": text("other")}, "'other', this server answers for"),
    "no embeddings": ({"vision_embeddings_fp32": None, "deepstack_embeddings_fp32": None}, "is missing"),
    "no main": ({"vision_embeddings_fp32": None}, "without vision_embeddings"),
    "both twins": ({"vision_embeddings": np.zeros((24, 64), np.float16)}, "both given"),
    "mixed twins": (
        {"vision_embeddings": np.zeros((24, 64), np.float16), "vision_embeddings_fp32": None},
        "deepstack_embeddings_fp32 is given without vision_embeddings_fp32",
    ),
    "narrow": ({"vision_embeddings_fp32": np.zeros((24, 63), np.float32)}, "63 wide, 64 is expected"),
    "short": ({"vision_embeddings_fp32": np.zeros((23, 64), np.float32)}, "23 rows, the grids ask for 24"),
    "two levels": ({"deepstack_embeddings_fp32": np.zeros((2, 24, 64), np.float32)}, r"\[3, 24, 64\] is expected"),
    "NaN": ({"vision_embeddings_fp32": np.full((24, 64), np.nan, np.float32)}, r"\[0, 0\] is nan"),
    "mask": ({"attention_mask": np.zeros(5, np.int64)}, "attention_mask"),
    "positions": ({"vision_token_positions": np.array([1])}, "vision_token_positions"),
    "no JSON": ({"sampling_parameters": text("{")}, "no JSON"),
    "unknown name": ({"sampling_parameters": sampling(max_token=3)}, "'max_token', allowed are"),
    "temperature": ({"sampling_parameters": sampling(temperature=-1)}, "temperature is -1"),
    "too many new tokens": ({"sampling_parameters": sampling(max_tokens=10_000)}, "max_tokens is 10000, up to 8192"),
    "two flags": ({"stream": np.array([True, False])}, r"stream has shape \[2\], \[1\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests(parser, good, name):
    changed, message = WRONG[name]
    values = {k: v for k, v in (good | changed).items() if v is not None}
    with pytest.raises(InvalidInput, match=message):
        parser.parse(values, {})
    assert parser.parse(good, {}).prompt.input_ids.size


def test_unknown_parameter_names_the_allowed(parser, good):
    with pytest.raises(InvalidInput, match="'image_grid' is neither an input nor a parameter; inputs are input_ids"):
        parser.parse(good, {"image_grid": 1})
    with pytest.raises(InvalidInput, match="'temperatur'"):
        parser.parse(good, {"temperatur": 1})


def test_parameters_go_before_the_tensor(parser, good):
    request = parser.parse(
        good | {"sampling_parameters": sampling(max_tokens=5, top_k=3)}, {"max_tokens": 7, "stop": "x"}
    )
    assert (request.sampling.max_tokens, request.sampling.top_k, request.sampling.stop) == (7, 3, ("x",))


def test_text_with_one_pad_an_item(parser, good, reference, cases):
    case = cases["one image"]
    prompt = "See <|vision_start|><|image_pad|><|vision_end|> what is it?"
    values = {k: v for k, v in good.items() if k != "input_ids"} | {"text_input": text(prompt)}
    request = parser.parse(values | {"exclude_input_in_output": np.array([False])}, {})
    assert request.prompt.input_ids.tolist() == case.input_ids.tolist()
    assert request.echo == prompt
    with pytest.raises(InvalidInput, match="2 image pads"):
        parser.parse(values | {"text_input": text(prompt + "<|image_pad|>")}, {})
    with pytest.raises(InvalidInput, match="26000 characters"):
        parser.parse({"text_input": text("a" * 26_000)}, {})


def test_half_and_packed_twins(parser, cases):
    case = cases["one image"]
    half, packed = (parser.parse(arrays(tensors(case, twin=twin)), {}).prompt for twin in ("fp16", "packed"))
    assert half.main.dtype == np.float16
    np.testing.assert_array_equal(half.main, packed.main)
    np.testing.assert_array_equal(half.deepstack, packed.deepstack)


def test_a_text_only_request_needs_no_fingerprint(parser):
    assert parser.parse({"input_ids": np.array([1, 2, 3])}, {}).is_stream
    with pytest.raises(InvalidInput, match="pad tokens"):
        parser.parse({"input_ids": np.array([START, IMAGE]), "encoder_fingerprint": text(FINGERPRINT)}, {})


def test_answers(parser, good):
    asked = {f"return_{name}": np.array([True]) for name in ("num_input_tokens", "num_output_tokens", "finish_reason")}
    deltas = (Delta((5,), "a"), Delta((6, 7), "b"), Delta((8,), "c", "length"))
    streamed = Answer(parser.parse(good | asked, {}))
    out = [streamed.add(delta) for delta in deltas]
    assert [o["text_output"][0] for o in out] == [b"a", b"b", b"c"]
    assert [o["finish_reason"][0] for o in out] == [b"", b"", b"length"]
    assert [int(o["num_output_tokens"][0]) for o in out] == [1, 2, 1]
    assert "error" not in out[0]
    once = Answer(parser.parse(good | asked | {"stream": np.array([False])}, {}))
    assert [once.add(delta) for delta in deltas[:2]] == [None, None]
    assert not once.is_begun
    whole = once.add(deltas[2])
    assert whole["token_ids"].tolist() == [5, 6, 7, 8]
    assert whole["text_output"][0] == b"abc"


@pytest.mark.parametrize("reason", [CANCELLED, ERROR])
def test_an_early_end_says_so_unasked(parser, good, reason):
    good = {k: v for k, v in good.items() if k != "return_finish_reason"} | {"stream": np.array([False])}
    answer = Answer(parser.parse(good, {}))
    answer.add(Delta((5,), "a"))
    out = answer.end(reason, "[INTERNAL] x" if reason == ERROR else "")
    assert out["finish_reason"][0] == reason.encode()
    assert out["text_output"][0] == b"a"
    assert ("error" in out) == (reason == ERROR)


def test_too_many_items_are_refused_before_they_are_looked_at(parser, good):
    """The number is judged first: a million grids cost nothing, and the first bad one is not reached."""
    grids = np.zeros((1_000_000, 3), np.int64)
    with pytest.raises(InvalidInput, match="1000000 pictures and videos, 4"):
        parser.parse(good | {"image_grid_thw": grids}, {})
