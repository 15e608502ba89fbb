"""Every way into the server, by the clients people have: tritonclient, curl, shared memory.

The cases follow Triton's own suites for models like this one: decoupled (many responses in order, several requests on one
stream, wrong shape, `infer` refused), generate (one answer, events, too many responses, no JSON, wrong types, unknown
fields), input validation (missing, doubled and unknown tensors, byte sizes), shared memory (in, out, offsets beyond the
region, twice, unregistered). Cancelling is in test_triton and test_life, errors of our own in test_errors.
"""

import json
import queue
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from contract.names import MODEL, UNARY_MODEL
from serving.triton.launcher import TritonServer
from tests.serving.names import OLD
from tests.serving.reference import FINGERPRINT, MAX_NEW_TOKENS, Case
from tests.serving.test_triton import post
from tests.serving.wire import (
    TIMEOUT_SECONDS,
    grpcclient,
    httpclient,
    inputs,
    is_final,
    opened,
    stream,
    tensors,
    unary,
)
from tests.waiting import wait_for

QUESTION = "See <|vision_start|><|image_pad|><|vision_end|> what is it?"  # the case "one image"
CLIENTS = pytest.mark.parametrize("client", [grpcclient, httpclient], ids=["grpc", "http"])


def curl(server: Any, path: str, body: str) -> tuple[int, str]:
    """Status and body of a POST as a person would type it."""
    command = ["curl", "--silent", "--no-buffer", "--max-time", "30", "--write-out", "\n%{http_code}", "--data", body]
    done = subprocess.run([*command, f"{server.http_url}/v2/models/{path}"], capture_output=True, text=True, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def events(body: str) -> list[dict[str, Any]]:
    lines = [line for line in body.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def is_let_go(connection: Any, name: str) -> bool:
    """Whether the server forgot the region; it needs one for a moment after the answer."""
    try:
        connection.unregister_system_shared_memory(name)
    except InferenceServerException as error:
        if "currently in use" in error.message():
            return False
        raise
    return True


@contextmanager
def region(connection: Any, size: int) -> Iterator[tuple[str, Any]]:
    """A region of shared memory that the server knows."""
    name = f"doors_{uuid.uuid4().hex[:8]}"
    handle = shm.create_shared_memory_region(name, f"/{name}", size)
    try:
        connection.register_system_shared_memory(name, f"/{name}", size)
        yield name, handle
        wait_for(lambda: is_let_go(connection, name))
    finally:
        shm.destroy_shared_memory_region(handle)


# streams


def test_one_response_a_token_and_the_last_one_is_final(server: TritonServer, cases: dict[str, Case]) -> None:
    with opened(server.grpc_url, tensors(cases["text"])) as (_, answers):
        results = [answers.get(timeout=TIMEOUT_SECONDS)[0] for _ in range(MAX_NEW_TOKENS)]
        assert [is_final(result) for result in results] == [False] * (MAX_NEW_TOKENS - 1) + [True]
        assert [result.as_numpy("token_ids")[0] for result in results] == list(cases["text"].expected)
        with pytest.raises(queue.Empty):
            answers.get(timeout=0.2)


def test_requests_that_share_a_stream_keep_their_own_order(server: TritonServer, cases: dict[str, Case]) -> None:
    """Requests through the new and the old name of the model, each with its own tokens."""
    names = {"text": OLD, "one image": MODEL, "video": MODEL, "mixed": OLD}
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        answers: queue.Queue = queue.Queue()
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for name, model in names.items():
            client.async_stream_infer(model, inputs(grpcclient, tensors(cases[name])), request_id=name)
        found: dict[str, list[int]] = {name: [] for name in names}
        left = len(names)
        while left:
            result, error = answers.get(timeout=TIMEOUT_SECONDS)
            assert error is None
            found[result.get_response().id] += result.as_numpy("token_ids").tolist()
            left -= is_final(result)
        client.stop_stream()
    assert {name: tuple(tokens) for name, tokens in found.items()} == {name: cases[name].expected for name in names}


@CLIENTS
def test_infer_on_the_streaming_model_says_what_to_use(
    server: TritonServer, cases: dict[str, Case], client: Any
) -> None:
    url = server.grpc_url if client is grpcclient else server.http_url
    with (
        client.InferenceServerClient(url) as connection,
        pytest.raises(InferenceServerException, match="doesn't support models with decoupled") as refused,
    ):
        connection.infer(MODEL, inputs(client, tensors(cases["text"])))
    assert refused.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


def test_log_probabilities_are_told_on_request(server: TritonServer, cases: dict[str, Case]) -> None:
    values = tensors(cases["text"], sampling={"logprobs": 2, "max_tokens": 5})
    told = []
    with opened(server.grpc_url, values) as (_, answers):
        for _ in range(5):
            result = answers.get(timeout=TIMEOUT_SECONDS)[0]
            told.append(json.loads(result.as_numpy("logprobs")[0]))
            assert told[-1]["id"] == result.as_numpy("token_ids")[0]
    for one in told:
        assert one["id"] == one["top"][0]["id"]  # greedy
        assert one["logprob"] == one["top"][0]["logprob"] > one["top"][1]["logprob"]
        assert one["logprob"] < 0
    whole = unary(server.http_url, values, httpclient)
    assert [json.loads(one)["id"] for one in whole.as_numpy("logprobs")] == [one["id"] for one in told]
    assert unary(server.http_url, tensors(cases["text"]), httpclient).as_numpy("logprobs") is None


# generate, by curl


def test_curl_asks_about_text(server: TritonServer, cases: dict[str, Case]) -> None:
    expected = list(cases["text"].expected[:6])
    body = json.dumps({"text_input": "Tell me something.", "max_tokens": 6, "return_finish_reason": True})
    status, answer = curl(server, f"{UNARY_MODEL}/generate", body)
    assert (status, json.loads(answer)["token_ids"]) == (200, expected)
    status, answer = curl(server, f"{MODEL}/generate_stream", body)
    found = events(answer)
    assert (status, [event["token_ids"] for event in found]) == (200, expected)
    assert [event["finish_reason"] for event in found] == [""] * 5 + ["length"]


def test_curl_asks_about_a_picture_by_its_key(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    kept = unary(server.http_url, tensors(case, sampling={"max_tokens": 0}), httpclient)
    key = kept.as_numpy("vision_keys")[0].decode()
    body = json.dumps({"text_input": QUESTION, "vision_keys": [key], "max_tokens": len(case.expected)})
    status, answer = curl(server, f"{MODEL}/generate_stream", body)
    assert (status, tuple(event["token_ids"] for event in events(answer))) == (200, case.expected)


def test_generate_on_the_streaming_model_takes_one_answer(server: TritonServer) -> None:
    asked = {"text_input": "Tell me something.", "max_tokens": 3}
    status, answer = curl(server, f"{MODEL}/generate", json.dumps(asked | {"stream": False}))
    assert (status, len(json.loads(answer)["token_ids"])) == (200, 3)
    _, answer = curl(server, f"{MODEL}/generate", json.dumps(asked))  # Triton's own words, and its own status
    assert "exactly 1 response" in json.loads(answer)["error"]
    status, answer = curl(server, f"{UNARY_MODEL}/generate", json.dumps(asked | {"stream": True}))
    assert (status, len(json.loads(answer)["token_ids"])) == (200, 3)  # this model has one response, whatever is asked


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "3",
        '{"text_input": 3}',
        '{"text_input": ["a", "b"]}',
        '{"text_input": {"a": 1}}',
        '{"nothing": 1}',
    ],
)
@pytest.mark.parametrize("path", [f"{UNARY_MODEL}/generate", f"{MODEL}/generate_stream"])
def test_curl_with_nonsense_gets_an_error(server: TritonServer, cases: dict[str, Case], path: str, body: str) -> None:
    status, answer = curl(server, path, body)
    assert 400 <= status <= 500
    assert "error" in answer
    assert "Traceback" not in answer
    assert stream(server.grpc_url, tensors(cases["one image"]))[0] == cases["one image"].expected


def test_errors_of_an_event_stream_come_before_its_first_event(server: TritonServer) -> None:
    status, answer = post(server, f"{MODEL}/generate_stream", text_input="hi", temperature=-1)
    assert status == 400
    (event,) = events(answer)
    assert event["error"].startswith("[INVALID_ARG] sampling_parameters.temperature is -1")


# tensors that Triton refuses


@CLIENTS
def test_tensors_that_do_not_fit_the_model(server: TritonServer, cases: dict[str, Case], client: Any) -> None:
    url = server.grpc_url if client is grpcclient else server.http_url
    good = inputs(client, tensors(cases["text"]))
    wrong_type = client.InferInput("input_ids", [3], "INT32")
    wrong_type.set_data_from_numpy(np.arange(3, dtype=np.int32))
    unknown = client.InferInput("colour", [1], "INT64")
    unknown.set_data_from_numpy(np.array([1]))
    two = client.InferInput("stream", [2], "BOOL")
    two.set_data_from_numpy(np.array([True, False]))
    wide = client.InferInput("image_grid_thw", [1, 4], "INT64")
    wide.set_data_from_numpy(np.ones((1, 4), np.int64))
    without_ids = [tensor for tensor in good if tensor.name() != "input_ids"]
    tries = {
        "data-?type": [wrong_type, *without_ids],
        "unexpected inference input 'colour'": [*good, unknown],
        "unexpected shape for input 'stream'": [*good, two],
        "unexpected shape for input 'image_grid_thw'": [*good, wide],
        "input_ids": [*good, good[0]],
        "neither of input_ids and text_input": without_ids,
    }
    with client.InferenceServerClient(url) as connection:
        for message, values in tries.items():
            with pytest.raises(InferenceServerException, match=message) as refused:
                connection.infer(UNARY_MODEL, values)
            assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
        with pytest.raises(InferenceServerException, match="unexpected inference output 'colour'"):
            connection.infer(UNARY_MODEL, good, outputs=[client.InferRequestedOutput("colour")])
        assert tuple(connection.infer(UNARY_MODEL, good).as_numpy("token_ids").tolist()) == cases["text"].expected


def test_bytes_that_are_not_the_shapes(server: TritonServer, cases: dict[str, Case]) -> None:
    values = inputs(grpcclient, tensors(cases["one image"]))
    for tensor in values:
        if tensor.name() == "vision_embeddings_fp32":
            tensor.set_shape([1 << 31, 1 << 31])
    with (
        grpcclient.InferenceServerClient(server.grpc_url) as connection,
        pytest.raises(InferenceServerException) as refused,
    ):
        connection.infer(UNARY_MODEL, values)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


# shared memory


@pytest.mark.parametrize(("client", "is_stream"), [(grpcclient, False), (grpcclient, True), (httpclient, False)])
def test_embeddings_in_shared_memory(
    server: TritonServer, cases: dict[str, Case], client: Any, is_stream: bool
) -> None:
    """Inputs from one region at two offsets."""
    case, url = cases["one image"], server.grpc_url if client is grpcclient else server.http_url
    rows = {"vision_embeddings_fp32": case.main, "deepstack_embeddings_fp32": case.deepstack}
    values = inputs(client, {name: value for name, value in tensors(case).items() if name not in rows})
    with (
        client.InferenceServerClient(url) as connection,
        region(connection, sum(array.nbytes for array in rows.values())) as (name, handle),
    ):
        shm.set_shared_memory_region(handle, list(rows.values()))
        offset = 0
        for tensor_name, array in rows.items():
            tensor = client.InferInput(tensor_name, list(array.shape), "FP32")
            tensor.set_shared_memory(name, array.nbytes, offset)
            values.append(tensor)
            offset += array.nbytes
        if is_stream:
            assert _streamed(server, values) == case.expected
        else:
            assert tuple(connection.infer(UNARY_MODEL, values).as_numpy("token_ids").tolist()) == case.expected


def _streamed(server: Any, values: list[Any]) -> tuple[int, ...]:
    answers: queue.Queue = queue.Queue()
    tokens: list[int] = []
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        client.async_stream_infer(MODEL, values)
        while True:
            result, error = answers.get(timeout=TIMEOUT_SECONDS)
            assert error is None
            tokens += result.as_numpy("token_ids").tolist()
            if is_final(result):
                client.stop_stream()
                return tuple(tokens)


@CLIENTS
def test_outputs_in_shared_memory(server: TritonServer, cases: dict[str, Case], client: Any) -> None:
    case, url = cases["one image"], server.grpc_url if client is grpcclient else server.http_url
    with client.InferenceServerClient(url) as connection, region(connection, 8 * MAX_NEW_TOKENS) as (name, handle):
        output = client.InferRequestedOutput("token_ids")
        output.set_shared_memory(name, 8 * MAX_NEW_TOKENS)
        result = connection.infer(UNARY_MODEL, inputs(client, tensors(case)), outputs=[output])
        assert result.as_numpy("text_output") is None
        tokens = shm.get_contents_as_numpy(handle, np.int64, [MAX_NEW_TOKENS])
        assert tuple(tokens.tolist()) == case.expected


@pytest.mark.parametrize("path", [f"{MODEL}/generate_stream", f"{UNARY_MODEL}/generate"])
def test_id_and_timeout_are_fields_of_generate(server: TritonServer, path: str) -> None:
    question = {"text_input": "Tell me something.", "max_tokens": 2}
    for extra in ({"id": "abc"}, {"timeout": 60_000_000}, {"id": "abc", "timeout": 60_000_000}):
        status, body = post(server, path, **question, **extra)
        assert (status, "token_ids" in body) == (200, True), body
    status, body = post(server, path, **question, timeout=1)
    assert (status, "[DEADLINE_EXCEEDED]" in body) == (400, True), body
    for wrong in ("5", -1, 0.5, True, 1 << 63):
        status, body = post(server, path, **question, timeout=wrong)
        assert (status, "[INVALID_ARG] timeout is" in body) == (400, True), body


def test_fields_of_generate_are_the_same_for_both_models(server: TritonServer) -> None:
    """Fractions and large numbers too, which a request from model to model cannot carry as they are."""
    question = {"text_input": "Tell me something.", "max_tokens": 6, "seed": 3}
    for extra in ({"temperature": 0.7}, {"temperature": 0.9, "top_p": 0.5}, {"min_p": 1e-320, "temperature": 1.5}):
        status, body = post(server, f"{UNARY_MODEL}/generate", **question, **extra)
        assert status == 200, body
        streamed = events(post(server, f"{MODEL}/generate_stream", **question, **extra)[1])
        assert json.loads(body)["token_ids"] == [event["token_ids"] for event in streamed]
    for wrong in ({"max_tokens": 4.0}, {"seed": 1 << 63}, {"seed": 1 << 64}, {"temperature": 1e300}):
        for path in (f"{UNARY_MODEL}/generate", f"{MODEL}/generate_stream"):
            status, body = post(server, path, **question | wrong)
            assert (status, "[INVALID_ARG] sampling_parameters." in body) == (400, True), body
    with httpclient.InferenceServerClient(server.http_url) as connection:
        text = inputs(httpclient, {"text_input": "Tell me something."})
        result = connection.infer(UNARY_MODEL, text, parameters={"temperature": 0.7, "seed": 3, "max_tokens": 6})
    assert result.as_numpy("token_ids").size == 6


@pytest.mark.parametrize(
    "extreme",
    [
        {"temperature": 1e-40},
        {"temperature": 5e-324, "top_p": 1e-300},
        {"temperature": 100, "repetition_penalty": 0.01, "presence_penalty": 2, "frequency_penalty": -2},
        {"temperature": 1, "top_k": 1 << 20, "min_p": 1},
        {"min_tokens": 6, "stop_token_ids": list(range(271))},
        {"repetition_penalty": 100, "logprobs": 20},
    ],
    ids=str,
)
def test_extreme_sampling_is_served(server: TritonServer, cases: dict[str, Case], extreme: Any) -> None:
    tokens, _, reason = stream(server.grpc_url, tensors(cases["text"], sampling={"max_tokens": 6} | extreme))
    assert (len(tokens), reason) == (6, "length")


def test_refused_values_are_shortened(server: TritonServer, cases: dict[str, Case]) -> None:
    for sampling in ({"max_tokens": "x" * 100_000}, {"stop": ["y" * 300] * 16}, {"z" * 100_000: 1}, {"seed": 10**4000}):
        for ask in (
            lambda values: stream(server.grpc_url, values),
            lambda values: unary(server.grpc_url, values),
            lambda values: unary(server.http_url, values, httpclient),
        ):
            with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\]") as refused:
                ask(tensors(cases["text"], sampling=sampling))
            assert len(refused.value.message()) < 1500


def test_shared_memory_that_is_not_there(server: TritonServer, cases: dict[str, Case]) -> None:
    """The server refuses offsets beyond the region and unregistered regions, and lives."""
    case = cases["one image"]
    values = tensors(case)
    with httpclient.InferenceServerClient(server.http_url) as connection, region(connection, 1024) as (name, _):
        for where, offset in ((name, 0), (name, 1 << 40), ("nobody", 0)):
            made = inputs(httpclient, {k: v for k, v in values.items() if k != "vision_embeddings_fp32"})
            tensor = httpclient.InferInput("vision_embeddings_fp32", list(case.main.shape), "FP32")
            tensor.set_shared_memory(where, case.main.nbytes, offset)
            with pytest.raises(InferenceServerException) as refused:
                connection.infer(UNARY_MODEL, [*made, tensor])
            assert "/dev/shm" not in refused.value.message()
        with pytest.raises(InferenceServerException, match="already in manager"):
            connection.register_system_shared_memory(name, f"/{name}", 1024)
    assert stream(server.grpc_url, values)[0] == case.expected


def test_the_fingerprint_is_published_where_clients_look_for_it(server: TritonServer) -> None:
    """Metadata of both models, so that a client adapts before it encodes."""
    for model in (MODEL, UNARY_MODEL):
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            config = client.get_model_config(model, as_json=True)["config"]
        values = {name: value["string_value"] for name, value in config["parameters"].items()}
        assert values["encoder_fingerprint"] == FINGERPRINT
        assert values["embedding_datatypes"] == "FP16,FP32,INT8"
        assert {"hidden_size", "num_deepstack_levels", "max_reuse_bytes", "engine", "has_vision_model"} <= values.keys()
