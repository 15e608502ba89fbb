"""Hostile requests: a good one with some of its parts replaced, as it goes over each door.

A request is built field by field, not by tritonclient, which would refuse most of these itself.
"""

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from contract.tensors import INPUTS
from tests.serving.wire import DATATYPES

ITEM_BYTES = {"INT64": 8, "INT32": 4, "UINT8": 1, "INT8": 1, "FP16": 2, "FP32": 4, "BOOL": 1}
TYPES = [*ITEM_BYTES, "BYTES"]
SPECS = [spec for spec in INPUTS if spec.name != "cancel"]  # a cancel is another request's end
MAX_TOKENS = 4


@dataclass(frozen=True)
class Tensor:
    """One input as KServe has it; data are its bytes in row-major order, BYTES each with a length in front."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def __repr__(self) -> str:
        return f"Tensor({self.name} {self.datatype} {list(self.shape)} {self.data[:80]!r} of {len(self.data)} bytes)"


@dataclass(frozen=True)
class Hostile:
    """A request: its tensors, its parameters (bool, int or str) and its id."""

    tensors: tuple[Tensor, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def with_tensor(self, tensor: Tensor) -> "Hostile":
        kept = tuple(other for other in self.tensors if other.name != tensor.name)
        return replace(self, tensors=(*kept, tensor))


def texts(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, str):
        return Tensor(name, "BYTES", (1,), texts(value.encode()))
    array = np.asarray(value, order="C")
    if array.dtype == object:
        return Tensor(name, "BYTES", array.shape, texts(*array.ravel()))
    return Tensor(name, DATATYPES[array.dtype.name], array.shape, array.tobytes())


def good(values: dict[str, Any]) -> Hostile:
    """A request that is served, of few tokens."""
    sampling = {"max_tokens": MAX_TOKENS}
    values = values | {"sampling_parameters": json.dumps(sampling)}
    return Hostile(tuple(as_tensor(name, value) for name, value in values.items()))


numbers = st.one_of(
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.sampled_from([0, 1, -1, 0.5, 1e-40, 5e-324, 1e308, 1 << 63, (1 << 63) - 1, 1 << 31, 10**400]),
)
words = st.one_of(st.text(max_size=20), st.sampled_from(["", "\0", "a" * 300, "<|image_pad|>", "😀", "\ud800"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
SAMPLING = [
    *("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "logprobs", "seed", "stop", "stop_token_ids", "ignore_eos", "structured_outputs"),
]
samplings = st.one_of(
    st.dictionaries(st.sampled_from(SAMPLING), values, max_size=5).map(lambda made: {"max_tokens": MAX_TOKENS} | made),
    st.fixed_dictionaries(
        {"max_tokens": st.just(MAX_TOKENS)},
        optional={
            "temperature": st.floats(0, 100),
            "top_p": st.floats(0, 1, exclude_min=True),
            "top_k": st.integers(-1, 1 << 20),
            "min_p": st.floats(0, 1),
            "repetition_penalty": st.floats(0.01, 100),
            "presence_penalty": st.floats(-2, 2),
            "frequency_penalty": st.floats(-2, 2),
            "min_tokens": st.integers(0, MAX_TOKENS),
            "logprobs": st.integers(0, 20),
            "seed": st.integers(0, (1 << 63) - 1),
            "stop": st.lists(st.text(min_size=1, max_size=256), max_size=16),
            "stop_token_ids": st.lists(st.integers(0, 300), max_size=300),
            "ignore_eos": st.booleans(),
        },
    ),
    values,
)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


prompts = st.one_of(
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"<|image_pad|>", b"<|video_pad|>", b"<|vision_start|>", b"<|im_end|>", b"x", b" ", b"\0"]),
        max_size=12,
    ).map(b"".join),
    st.integers(1, 200_000).map(lambda size: b"x" * size),
)
sides = st.one_of(st.integers(0, 6), st.sampled_from([24, 64, 256]))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor of the contract, of its own type and rank or of another, filled or cut short."""
    spec = draw(st.sampled_from(SPECS))
    datatype = draw(st.sampled_from([spec.datatype] * 4 + TYPES))
    rank = draw(st.sampled_from([len(spec.shape)] * 4 + [1, 2, 3]))
    shape = tuple(draw(sides) for _ in range(rank))
    if spec.shape == (1,) and draw(st.booleans()):
        shape = (1,)
    size = min(math.prod(shape), 1 << 16)
    if math.prod(shape) > size:
        shape = (size,)
    if datatype == "BYTES":
        if spec.name == "sampling_parameters":
            items = [draw(samplings.map(_json)) for _ in range(min(size, 2))]
        else:
            items = [draw(prompts) for _ in range(min(size, 3))]
        items += [b""] * (size - len(items))
        return Tensor(spec.name, datatype, shape, texts(*items))
    length = size * ITEM_BYTES[datatype]
    seed = draw(st.binary(min_size=1, max_size=64))
    if draw(st.booleans()):  # small whole numbers, which look like grids and ids
        array = np.frombuffer(seed, np.uint8)[np.arange(size) % len(seed)] % 16
        return Tensor(spec.name, datatype, shape, array.astype(_NUMPY[datatype]).tobytes())
    return Tensor(spec.name, datatype, shape, (seed * (length // len(seed) + 1))[:length])


_NUMPY = {
    "INT64": np.int64, "INT32": np.int32, "UINT8": np.uint8, "INT8": np.int8, "FP16": np.float16, "FP32": np.float32,
    "BOOL": np.bool_,
}  # fmt: skip
parameters = st.dictionaries(
    st.one_of(st.sampled_from([*SAMPLING, "timeout", "id", "json_fields", "priority"]), st.text(max_size=10)),
    st.one_of(st.booleans(), st.integers(-(1 << 62), 1 << 62), words.filter(lambda word: "\ud800" not in word)),
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn, bases: list[Hostile]) -> Hostile:
    """A good request with one to three parts replaced."""
    made = draw(st.sampled_from(bases))
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["tensor", "sampling", "text", "drop", "parameters", "id"]))
        if how == "tensor":
            made = made.with_tensor(draw(tensors()))
        elif how == "sampling":
            made = made.with_tensor(Tensor("sampling_parameters", "BYTES", (1,), texts(draw(samplings.map(_json)))))
        elif how == "text":
            made = made.with_tensor(Tensor("text_input", "BYTES", (1,), texts(draw(prompts))))
        elif how == "drop" and made.tensors:
            gone = draw(st.integers(0, len(made.tensors) - 1))
            made = replace(made, tensors=made.tensors[:gone] + made.tensors[gone + 1 :])
        elif how == "parameters":
            made = replace(made, parameters=draw(parameters))
        else:
            made = replace(made, id=draw(st.text("abc-_", max_size=300)))
    return made


fields = st.one_of(st.sampled_from(["text_input", "stream", "id", "timeout", *SAMPLING]), st.text(max_size=10))
plain = st.one_of(st.booleans(), numbers, words)  # Triton itself refuses null, lists of several kinds and objects
bodies = st.one_of(
    *(
        st.dictionaries(fields, value, max_size=most).map(
            lambda body: _json({"text_input": "Tell me.", "max_tokens": MAX_TOKENS} | body)
        )
        for value, most in ((plain, 2), (plain, 5), (values, 5))
    ),
    values.map(_json),
    st.binary(max_size=60),
)


def drawing(num_requests: int) -> settings:
    """Draw so many requests and take no notice of what fails: the campaign counts that itself."""
    return settings(
        max_examples=num_requests,
        deadline=None,
        database=None,
        derandomize=False,  # the profile of the tests draws the same ones each time
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
