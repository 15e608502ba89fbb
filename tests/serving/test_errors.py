"""Every row of contract.checks by example: in the parser, where every `raise` must be reached, and over each door of a server.

Rows that need a state of the server rather than a request are those of ELSEWHERE, tried by the tests named there.
"""

import ast
import inspect
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

import contract.codecs.codec
import contract.codecs.int4
import contract.codecs.rans
import contract.codecs.stream
import contract.embeddings
import contract.expansion
import contract.grids
import contract.prompt
import contract.rows
import contract.sampling
import contract.tasks
import contract.tensors
import serving.requests.keys
import serving.requests.request
import serving.requests.store
import serving.requests.tokens
from contract.checks import CHECKS, STATUSES
from contract.codecs import ecq, int4, klt, nibbles
from contract.codecs.int8 import quantise
from contract.errors import EdgeVlmError, Unavailable, from_wire, shortened
from contract.items import ItemTensors, item_key, prompt_items
from contract.limits import Limits
from serving.requests.request import RequestParser
from serving.requests.store import ReuseStore
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.families import test_wire
from tests.serving import test_doors, test_engine, test_grammars, test_life, test_reuse, test_rows, test_triton
from tests.serving.reference import FINGERPRINT, IMAGE, START, VIDEO, Case, Reference
from tests.serving.wire import grpcclient, httpclient, opened, stream, tensors, unary

LIMITS = Limits(
    max_items=4,
    max_prompt_tokens=400,
    max_output_tokens=64,
    max_embedding_bytes=1 << 18,
    max_kv_bytes=300 << 10,
    max_reuse_bytes=1 << 20,
)
ROWS, H = 24, 64  # of the case that is asked about
ELSEWHERE = {
    "grammars": test_grammars.test_few_wait_for_a_trial,
    "keep-off": test_reuse.test_a_server_that_keeps_nothing_says_so,
    "rows-or-grid": test_wire.test_rows_that_lie_are_refused_alone,
    "rows-count": test_wire.test_rows_that_lie_are_refused_alone,
    "queue": test_triton.test_a_full_server_says_so,
    "queue-time": test_life.test_too_long_in_the_queue,
    "timeout": test_triton.test_a_deadline_before_the_first_token,
    "cancel": test_triton.test_cancel_of_an_unknown_id,
    "kept-engine": test_rows.test_vllm_drops_no_rows_where_it_numbers_tokens_itself,
    "cancel-id": test_triton.test_cancel_without_an_id,
    "timeout-value": test_doors.test_id_and_timeout_are_fields_of_generate,
    "engine": test_engine.test_damaged_weights_are_the_servers_fault,
}
NAMED = (  # messages begin with the tensor that is wrong
    *("codec", "codec-form", "codec-none", "stream", "stream-lengths", "int4", "int4-value", "scales", "scales-shape"),
    *("mask-length", "mask-empty", "mask-first", "mask-copied", "mask-rows", "mask-pads"),
)
BY_THE_ENGINE = {
    "no-choice": "leave one id out",
    "constraint": "exactly one is expected",
    "grammar": "cannot be compiled",
    "kv-bytes": "bytes of keys and values",
    "number-format": "values too large for",
}
FP32 = ("vision_embeddings_fp32", "deepstack_embeddings_fp32")
TRITONS_OWN = "unexpected shape"  # a scalar: 24.10 refuses it itself on these doors, with the same status
NO_ROWS: dict[str, Any] = dict.fromkeys(FP32)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def sampled(**values: Any) -> dict[str, Any]:
    return {"sampling_parameters": json.dumps(values)}


def text(value: str, **changed: Any) -> dict[str, Any]:
    return {"input_ids": None, "text_input": value} | changed


def keys(*values: str) -> dict[str, Any]:
    """A question by keys, without tensors."""
    return NO_ROWS | {"image_grid_thw": None, "vision_keys": np.array([v.encode() for v in values], object)}


def coded(name: str, reference: Reference, **arrays: Any) -> dict[str, Any]:
    """A request's rows in a codec, with the name and hash this server knows."""
    return NO_ROWS | {"vision_codec": reference.numbers.names[name]} | arrays


def foreign(case: Case, reference: Reference) -> ItemTensors:
    """The case's item as a server with other numbers has put it into a store that both share."""
    arrays = int4.encode(case.main, case.deepstack, reference.numbers)
    (grid,) = case.image_grid_thw.tolist()
    return ItemTensors(FINGERPRINT, False, tuple(grid), arrays, "int4:0123456789abcdef")


def damaged(stream: np.ndarray) -> list[np.ndarray]:
    """A stream that is cut, odd, of a wrong byte, and with its checksum made right: short of words, of other words, with
    too many values outside the table, and with one that belongs into it."""
    changed, other, body = stream.copy(), stream[4:].copy(), stream[4:].tobytes()
    changed[40] ^= 1
    other[:2] ^= 1  # in the first state
    inside = np.array([9, 3], "<i2").tobytes()
    bodies = [body[:64], other.tobytes(), body + b"\x09\x00", body[:-2] + inside[2:]]
    sealed = [np.frombuffer(zlib.crc32(b).to_bytes(4, "little") + b, np.uint8) for b in bodies]
    return [stream[:6], stream[:-1], changed, *sealed]


def examples(case: Case, reference: Reference) -> dict[str, list[dict[str, Any]]]:
    """Per check, changes that break a good request: tensors by name, None for absent ones, and request parameters."""
    (item,) = prompt_items(case.input_ids, case.image_grid_thw, case.video_grid_thw, reference.card)
    key = item_key(FINGERPRINT, item, case.main, case.deepstack)
    values, scales = quantise(case.main, case.deepstack)
    codes, steps = int4.encode(case.main, case.deepstack, reference.numbers)
    loud = case.main.copy()
    loud[-1, -1] = 50  # one value outside the table
    stream, stream_steps = ecq.encode(loud, case.deepstack, reference.numbers)
    none = codes.copy()
    none[1, 2, 3] = 0x18  # its low half is 8
    assert nibbles.HAS_OUTSIDE[0x18]

    def streamed(stream: np.ndarray, *lengths: int) -> dict[str, Any]:
        sizes = np.array(lengths or [stream.size])
        arrays = {"vision_stream": stream, "vision_stream_bytes": sizes, "vision_scales": stream_steps}
        return coded("ecq", reference, **arrays)

    int4_rows = coded("int4", reference, vision_embeddings_q4=codes, vision_scales=steps)
    int8_rows = NO_ROWS | {"vision_embeddings_q": values, "vision_scales": scales}
    one_pad = "<|vision_start|><|image_pad|><|vision_end|>"
    video = {"image_grid_thw": None, "video_grid_thw": np.array([[2, 8, 6]])}
    one_less = {"vision_embeddings_fp32": case.main[1:], "deepstack_embeddings_fp32": case.deepstack[:, 1:].copy()}
    clip_ids = np.where(case.input_ids == IMAGE, VIDEO, case.input_ids)
    masked = {"image_grid_thw": None, "video_grid_thw": np.array([[2, 6, 8]]), "input_ids": clip_ids}
    broken = case.input_ids.copy()  # a text token in the middle of the pads
    broken[[np.flatnonzero(broken == IMAGE)[5], -1]] = 65, IMAGE
    out_of_range: dict[str, list[Any]] = {
        "max_tokens": [-1, 1.5, True, "7", 1 << 21],
        "min_tokens": [-1, 21],
        "temperature": [-1, 101, float("nan"), "1"],
        "top_p": [0, 1.1],
        "top_k": [-2, 1.5],
        "min_p": [-0.1, 1.1],
        "repetition_penalty": [0, 1e-320, 101],
        "presence_penalty": [-2.1, 2.1],
        "frequency_penalty": [-2.1, 2.1],
        "logprobs": [-1, 21, True],
        "seed": [-1, 1 << 63],
        "stop_token_ids": [[-1], [1 << 31]],
    }
    klt_stream = klt.encode(100 * loud, case.deepstack, reference.numbers)[0]  # with a coefficient outside the table
    klt_damage = damaged(
        klt_stream
    )  # the fifth is a whole stream of other values: its table has a symbol for every word

    def transformed(stream: np.ndarray) -> dict[str, Any]:
        return coded("klt", reference, vision_stream=stream, vision_stream_bytes=np.array([stream.size]))

    return {
        "rank": [{"input_ids": np.array(3)}, {"image_grid_thw": np.array(3)}, {"stream": np.array(True)}],
        "empty": [{"input_ids": zeros(0, dtype=np.int64)}, {"image_grid_thw": zeros(0, 3, dtype=np.int64)}],
        "utf-8": [{"encoder_fingerprint": np.array([b"\xff\xfe"], object)}],
        "json": [{"sampling_parameters": "{"}, {"sampling_parameters": "[" * 100_000}],
        "json-object": [{"sampling_parameters": "[3]"}],
        "sampling-name": [sampled(max_token=3)],
        "sampling-value": [sampled(**{"max_tokens": 20} | {n: v}) for n, vs in out_of_range.items() for v in vs],
        "sampling-flag": [sampled(ignore_eos=1), sampled(skip_special_tokens="no")],
        "sampling-list": [sampled(stop=3), sampled(stop_token_ids=3)],
        "sampling-length": [{"sampling_parameters": json.dumps({"stop": "x" * (1 << 18)})}],
        "stop": [sampled(stop=[""]), sampled(stop=["x"] * 17), sampled(stop=[3]), sampled(stop="x" * 257)],
        "stop-ids": [sampled(stop_token_ids=list(range(1025)))],
        "structured-outputs": [sampled(structured_outputs="x")],
        "structured-depth": [{"sampling_parameters": f'{{"structured_outputs": {{"json": {"[" * 64}{"]" * 64}}}}}'}],
        "parameter": [{"parameters": {"colour": "red"}}, {"parameters": {"max_tokns": 3}}],
        "max-tokens": [sampled(max_tokens=65)],
        "max-keys": [keys(*["x"] * 5)],
        "max-items": [{"image_grid_thw": np.ones((5, 3), np.int64)}],
        "rows-layout": [
            {"image_grid_thw": None, "image_rows": np.array([ROWS])},
            {"video_rows": np.array([ROWS])},
        ],
        "grid-side": [{"image_grid_thw": np.array([grid])} for grid in ([1, 1 << 62, 1 << 62], [1, 0, 4], [1, -2, 4])],
        "grid-even": [{"image_grid_thw": np.array([[1, 9, 12]])}],
        "grid-frames": [{"image_grid_thw": np.array([[2, 8, 6]])}],
        "seconds": [
            {"video_second_per_grid": np.array([1.0], np.float32)}
        ],  # of a model whose positions follow no time
        "key-count": [{"vision_keys": np.array([b"", b""], object)}, {"vision_keys": np.array([b"x"], object)}],
        "key-unknown": [keys("0" * 64), keys("no key at all"), keys(foreign(case, reference).key)],
        "keep-items": [NO_ROWS | {"image_grid_thw": None} | sampled(max_tokens=0)],
        "prompt": [{"input_ids": None}, {"text_input": "hi"}],
        "text-length": [text("a" * 26_000)],
        "key-pads": [keys(key, key)],
        "key-kind": [keys(key) | {"input_ids": np.array([START, VIDEO])}],
        "key-grid": [video | {"vision_keys": np.array([b""], object)}],
        "text-rows": [text(one_pad, image_grid_thw=np.array([[1, 42, 42]]))],
        "text-pads": [text("none"), text(one_pad * 2), keys(key) | text("<|video_pad|>", **video)][:2],
        "no-tokens": [NO_ROWS | {"image_grid_thw": None} | text("")],
        "ids-length": [{"input_ids": np.ones(401, np.int64)}, text("a b " * 401)],
        "ids-range": [{"input_ids": np.array([3, i])} for i in (272, 1 << 40, -1)],
        "fingerprint": [{"encoder_fingerprint": None}],
        "fingerprint-other": [
            {"encoder_fingerprint": "another"},
            {"encoder_fingerprint": "another", "input_ids": np.array([-1]), "image_grid_thw": np.array([[1, 1, 166]])},
        ],
        "one-form": [{"vision_embeddings": zeros(ROWS, H, dtype=np.float16)}, {"vision_embeddings_q": values}],
        "pair": [
            {"vision_embeddings_fp32": None},
            {"deepstack_embeddings": zeros(3, ROWS, H, dtype=np.float16)},
            {"vision_scales": scales},
            {"vision_codec": reference.numbers.names["int8c"]},
            {"vision_stream_bytes": np.array([3])},
        ],
        "embeddings": [NO_ROWS],
        "bytes": [{"vision_embeddings_fp32": zeros(2000, H)}],
        "decoded-bytes": [
            text(one_pad, image_grid_thw=np.array([[1, 32, 34]]))
            | int8_rows
            | {
                "vision_embeddings_q": zeros(4, 272, H, dtype=np.int8),
                "vision_scales": zeros(4, 272, dtype=np.float16),
            },
            {"image_grid_thw": None, "video_grid_thw": np.array([[2, 32, 18]]), "input_ids": np.full(288, VIDEO)}
            | {"vision_embeddings_fp32": zeros(144, H), "deepstack_embeddings_fp32": zeros(3, 144, H)}
            | {"vision_rows_copied": np.arange(288) >= 144},
        ],
        "rows": [{"vision_embeddings_fp32": zeros(n, H)} for n in (ROWS + 1, ROWS - 1)],
        "packed": [{"deepstack_embeddings_fp32": None}, NO_ROWS | {"vision_embeddings_fp32": zeros(ROWS, H + 1)}],
        "width": [{"vision_embeddings_fp32": zeros(ROWS, H - 1)}],
        "deepstack": [{"deepstack_embeddings_fp32": zeros(*shape)} for shape in ((2, ROWS, H), (3, ROWS, H - 1))],
        "quantised": [NO_ROWS | {"vision_embeddings_q": values[:3], "vision_scales": scales}],
        "scales": [
            NO_ROWS | {"vision_embeddings_q": values},
            streamed(stream) | {"vision_codec": "klt:0123456789abcdef"},
        ],
        "scales-shape": [NO_ROWS | {"vision_embeddings_q": values, "vision_scales": scales[:, 1:].copy()}],
        "int4": [int4_rows | {"vision_embeddings_q4": codes[..., 1:].copy()}],
        "int4-value": [int4_rows | {"vision_embeddings_q4": none}],
        "codec": [
            int4_rows | {"vision_codec": "int4:0123456789abcdef"},
            int4_rows | {"vision_codec": "int4"},
            int8_rows | {"vision_codec": "klt:0123456789abcdef"},
            transformed(klt_stream) | {"vision_codec": "klt:0123456789abcdef"},
        ],
        "codec-form": [int4_rows | {"vision_codec": reference.numbers.names["ecq"]}],
        "codec-none": [int4_rows | {"vision_codec": None}, streamed(stream) | {"vision_codec": None}],
        "stream-lengths": [
            streamed(stream) | {"vision_stream_bytes": None},
            streamed(stream, stream.size - 9, 9),
            streamed(stream, stream.size + 1),
            streamed(stream, -1),
        ],
        "stream": [
            *(streamed(one) for one in damaged(stream)),
            *(transformed(one) for one in (*klt_damage[:4], *klt_damage[5:])),
        ],
        "mask-length": [{"vision_rows_kept": np.ones(ROWS - 1, bool)}, {"vision_rows_copied": np.ones(1, bool)}],
        "mask-empty": [{"vision_rows_kept": np.zeros(ROWS, bool)} | NO_ROWS],
        "mask-first": [masked | one_less | {"vision_rows_copied": np.arange(ROWS) == 3}],
        "mask-copied": [
            masked
            | {"vision_embeddings_fp32": case.main[:-2], "deepstack_embeddings_fp32": case.deepstack[:, :-2].copy()}
            | {"vision_rows_kept": np.arange(ROWS) > 0, "vision_rows_copied": np.arange(ROWS) == ROWS // 2}
        ],
        "mask-rows": [{"image_grid_thw": np.array([[1, 120, 120]]), "vision_rows_kept": np.arange(3600) < ROWS}],
        "mask-pads": [masked | {"vision_rows_kept": np.ones(ROWS, bool), "input_ids": np.array([START, IMAGE])}],
        "finite": [
            {"vision_embeddings_fp32": np.full((ROWS, H), np.nan, np.float32)},
            {"deepstack_embeddings_fp32": np.full((3, ROWS, H), -np.inf, np.float32)},
            NO_ROWS | {"vision_embeddings": np.full((ROWS, 4 * H), np.inf, np.float16)},
            NO_ROWS | {"vision_embeddings_q": values, "vision_scales": np.full_like(scales, np.nan)},
        ],
        "pads": [{"input_ids": np.array([START, IMAGE])}, {"input_ids": np.append(case.input_ids, VIDEO)}],
        "pad-runs": [{"input_ids": broken}],
        "mask": [{"attention_mask": zeros(5, dtype=np.int64)}, {"attention_mask": zeros(len(broken), dtype=np.int64)}],
        "positions": [{"vision_token_positions": np.array([1])}],
        "task": [{"task": "sing"}, {"task": "Embed"}],
        "task-model": [{"task": "score"}],
        "no-choice": [sampled(max_tokens=20, min_tokens=3, stop_token_ids=list(range(272)))],
        "constraint": [sampled(max_tokens=20, structured_outputs={"json": {}, "regex": "a"})],
        "grammar": [sampled(max_tokens=20, structured_outputs={"json": {"type": "colour"}})],
        "kv-bytes": [NO_ROWS | {"image_grid_thw": None, "input_ids": np.ones(390, np.int64)}],
        "number-format": [{"vision_embeddings_fp32": np.full((ROWS, H), 1e5, np.float32)}],
    }


def broken_request(good: dict[str, Any], changed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and request parameters."""
    values = {name: value for name, value in (good | changed).items() if value is not None}
    return values, values.pop("parameters", {})


@pytest.fixture(scope="module")
def wrong(cases: dict[str, Case], reference: Reference) -> dict[str, list[dict[str, Any]]]:
    return examples(cases["one image"], reference)


def test_every_row_has_an_example(wrong: dict[str, Any]) -> None:
    assert wrong.keys() | ELSEWHERE.keys() == CHECKS.keys()
    assert not wrong.keys() & ELSEWHERE.keys()


def raises(module: ModuleType) -> set[tuple[str, int]]:
    """Where a module raises: (file, line of the call)."""
    tree = ast.parse(inspect.getsource(module))
    return {(Path(module.__file__ or "").name, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Raise)}


def test_every_raise_of_the_parser_is_a_row(
    reference: Reference, cases: dict[str, Case], wrong: dict[str, Any]
) -> None:
    modules = (
        *(contract.codecs.codec, contract.codecs.int4, contract.codecs.rans, contract.codecs.stream),
        *(
            contract.embeddings,
            contract.expansion,
            contract.grids,
            contract.prompt,
            contract.sampling,
            contract.tasks,
            contract.tensors,
        ),
        *(serving.requests.keys, serving.requests.request, serving.requests.store, serving.requests.tokens),
    )
    expected = set().union(*map(raises, modules))
    good, reached = tensors(cases["one image"]), set()
    store = ReuseStore(1 << 20)
    parser = RequestParser(reference.card, LIMITS, reference.tokenizer, store, reference.numbers)
    store.keep(parser.parse(arrays(good), {}).prompt.contents)
    store.keep([foreign(cases["one image"], reference)])
    off = RequestParser(reference.card, Limits(max_reuse_bytes=0), reference.tokenizer, store)
    rows = [(name, change) for name, changes in wrong.items() if name not in BY_THE_ENGINE for change in changes]
    left = NO_ROWS | {"image_grid_thw": None} | text("nobody waits for this")
    for name, change in [*rows, ("keep-off", sampled(max_tokens=0)), ("", left)]:
        values, parameters = broken_request(good, change)
        one = off if name == "keep-off" else parser
        with pytest.raises(EdgeVlmError) as refused:
            one.parse(arrays(values), parameters, lambda name=name: bool(name))
        assert (refused.value.check or "") == name
        if name in NAMED:
            assert any(str(refused.value).startswith(tensor) for tensor in CHECKS[name].tensor.split(", "))
        assert isinstance(refused.value, CHECKS[name].error if name else Unavailable)
        innermost = refused.traceback[-1]
        start = innermost.lineno + 1
        reached |= {(innermost.path.name, line) for line in range(start - 6, start + 1)}  # a raise spans lines
    assert expected <= reached


def arrays(values: dict[str, Any]) -> dict[str, np.ndarray]:
    """As the server receives them: text is an object array of bytes."""
    return {k: np.array([v.encode()], object) if isinstance(v, str) else v for k, v in values.items()}


@pytest.fixture(scope="module")
def strict(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of small limits, in the number format with the smallest range."""
    log_file = tmp_path_factory.mktemp("triton") / "strict.log"
    with TritonServer(settings(reference.language, LIMITS, dtype="fp16"), log_file=log_file) as running:
        yield running
    assert "Traceback" not in log_file.read_text()


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ELSEWHERE])
def test_rows_over_every_door(
    strict: TritonServer, reference: Reference, cases: dict[str, Case], wrong: dict[str, Any], name: str
) -> None:
    """Refused with the row's code, status and the check's own words, telling nothing of the inside, and the next request is served."""
    check, good = CHECKS[name], tensors(cases["one image"])
    status, grpc_status = STATUSES[check.error.code]
    store = ReuseStore(1 << 20)
    parser = RequestParser(reference.card, LIMITS, reference.tokenizer, store, reference.numbers)
    store.keep(parser.parse(arrays(good), {}).prompt.contents)
    assert stream(strict.grpc_url, good)[2] == "length"
    for change in wrong[name]:
        values, parameters = broken_request(good, change)
        words, said = BY_THE_ENGINE.get(name), []
        if words is None:
            with pytest.raises(EdgeVlmError) as found:
                parser.parse(arrays(values), parameters)
            assert found.value.check == name
            words = shortened(str(found.value), 1000)[:-1]
        for ask, expected in (
            (lambda v, p: stream(strict.grpc_url, v, parameters=p), None),
            (lambda v, p: unary(strict.grpc_url, v, parameters=p), f"StatusCode.{grpc_status}"),
            (lambda v, p: unary(strict.http_url, v, httpclient, parameters=p), str(status)),
            (lambda v, p: stream(strict.grpc_url, v, model="qwen3_vl", parameters=p), None),
            (
                lambda v, p: unary(strict.grpc_url, v, model="qwen3_vl_unary", parameters=p),
                f"StatusCode.{grpc_status}",
            ),
        ):
            with pytest.raises(InferenceServerException) as refused:
                ask(values, parameters or None)
            said.append(refused.value.message())
            assert expected in (None, refused.value.status())
        for message in said:
            if name == "rank":
                assert TRITONS_OWN in message
                continue
            assert f"[{check.error.code}] " in message
            assert words in message
            assert len(message) <= 2000
            assert isinstance(from_wire(message), EdgeVlmError)
            assert from_wire(message).code == check.error.code
            assert not re.search(r"/|\.py|Traceback|edge_vlm_[0-9a-f]|line \d+, in", message.split("] ", 1)[1]), message
    assert stream(strict.grpc_url, good)[2] == "length"


def test_a_bug_of_the_server_tells_nothing(strict: TritonServer, cases: dict[str, Case]) -> None:
    """The good request again after all of that, over every door, with one answer."""
    good = tensors(cases["one image"])
    tokens = stream(strict.grpc_url, good)[0]
    for url, client in ((strict.grpc_url, grpcclient), (strict.http_url, httpclient)):
        assert tuple(unary(url, good, client).as_numpy("token_ids").tolist()) == tokens
    with opened(strict.grpc_url, good) as (_, answers):
        assert answers.get(timeout=30)[1] is None
