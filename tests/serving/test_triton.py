"""The real server: every way of asking gives the tokens of transformers on the pixels, and bad requests hurt nobody."""

import json
import queue
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from contract.errors import DeadlineExceeded, NotFound, Unavailable, from_wire
from contract.limits import Limits
from contract.names import MODEL, UNARY_MODEL
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.scrape import at_rest, published
from tests.serving.names import STREAMING, UNARY
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference
from tests.serving.wire import TIMEOUT_SECONDS, inputs, is_final, opened, stream, tensors, unary
from tests.waiting import wait_for

LONG = {"max_tokens": 1900, "ignore_eos": True}
CANCEL = {"cancel": np.array([True])}
ALL = ("text", "one image", "several sizes", "video", "mixed", "multi-turn", "two videos", "long text")


def post(server: TritonServer, path: Any, **body: Any) -> Any:
    request = urllib.request.Request(f"http://{server.http_url}/v2/models/{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("name", ALL)
def test_stream(server: TritonServer, cases: dict[str, Case], name: Any) -> None:
    tokens, _, reason = stream(server.grpc_url, tensors(cases[name]))
    assert tokens == cases[name].expected
    assert reason == "length"


@pytest.mark.parametrize("client", [grpcclient, httpclient])
@pytest.mark.parametrize("name", ALL)
def test_unary(server: TritonServer, cases: dict[str, Case], name: Any, client: Any) -> None:
    url = server.grpc_url if client is grpcclient else server.http_url
    result = unary(url, tensors(cases[name]), client)
    assert tuple(result.as_numpy("token_ids").tolist()) == cases[name].expected
    assert result.as_numpy("finish_reason")[0] == b"length"


@pytest.mark.parametrize("twin", ["fp16", "packed"])
def test_half_precision_twins(server: TritonServer, cases: dict[str, Case], twin: str) -> None:
    results = [stream(server.grpc_url, tensors(cases["mixed"], twin=kind)) for kind in ("fp16", twin)]
    assert results[0] == results[1]


def test_concurrent_streams_equal_those_alone(server: TritonServer, cases: dict[str, Case]) -> None:
    with ThreadPoolExecutor(len(ALL)) as pool:
        results = pool.map(lambda name: stream(server.grpc_url, tensors(cases[name])), ALL)
        assert [tokens for tokens, _, _ in results] == [cases[name].expected for name in ALL]


def test_concurrent_unary_requests_run_beside_each_other(server: TritonServer, cases: dict[str, Case]) -> None:
    with ThreadPoolExecutor(len(ALL)) as pool:
        results = pool.map(lambda name: unary(server.http_url, tensors(cases[name]), httpclient), ALL)
        found = [tuple(result.as_numpy("token_ids").tolist()) for result in results]
    assert found == [cases[name].expected for name in ALL]


def test_extra_outputs(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    asked = {f"return_{name}": np.array([True]) for name in ("num_input_tokens", "num_output_tokens")}
    result = unary(server.grpc_url, tensors(case) | asked)
    assert result.as_numpy("num_input_tokens").tolist() == [case.input_ids.size]
    assert result.as_numpy("num_output_tokens").tolist() == [MAX_NEW_TOKENS]
    assert result.as_numpy("error") is None


def test_json(server: TritonServer, cases: dict[str, Case], reference: Reference) -> None:
    expected = list(cases["text"].expected[:6])
    status, body = post(server, f"{UNARY_MODEL}/generate", text_input="Tell me something.", max_tokens=6)
    assert status == 200
    assert json.loads(body)["token_ids"] == expected
    status, body = post(server, f"{MODEL}/generate_stream", text_input="Tell me something.", max_tokens=6)
    events = [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n") if line]
    assert [event["token_ids"] for event in events] == expected
    echoing = {"exclude_input_in_output": False, "stream": False, "max_tokens": 6}
    status, body = post(server, f"{MODEL}/generate", text_input="Tell me something.", **echoing)
    assert json.loads(body)["text_output"].startswith("Tell me something.")


def test_metadata(server: TritonServer, reference: Reference) -> None:
    with httpclient.InferenceServerClient(server.http_url) as client:
        values = {k: v["string_value"] for k, v in client.get_model_config(MODEL)["parameters"].items()}
        assert client.get_model_metadata(UNARY_MODEL)["name"] == UNARY_MODEL
    assert values["encoder_fingerprint"] == reference.card.encoder_fingerprint
    assert int(values["hidden_size"]) == reference.card.hidden_size
    assert int(values["max_embedding_bytes"]) == 1 << 30
    assert values["embedding_codecs"].split() == ["fp16", "fp32", "int8", *reference.numbers.names.values()]


def test_rows_that_lead_out_of_range_fail_alone(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    values = tensors(case) | {"deepstack_embeddings_fp32": np.full_like(case.deepstack, 3e38)}  # their sum is inf
    with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] vision_embeddings and deepstack_embeddings"):
        stream(server.grpc_url, values)
    with pytest.raises(InferenceServerException) as failed:
        unary(server.http_url, values, httpclient)
    assert failed.value.status() == "400"
    assert stream(server.grpc_url, tensors(case))[0] == case.expected


def test_unknown_parameters_are_refused(server: TritonServer, cases: dict[str, Case]) -> None:
    status, body = post(server, f"{MODEL}/generate_stream", text_input="hi", max_tokns=3)
    assert status == 400
    assert "'max_tokns'" in body
    with pytest.raises(InferenceServerException, match="'colour'"):
        unary(server.grpc_url, tensors(cases["text"]), parameters={"colour": "red"})
    for packed in ("no JSON", "false", "[" * 3000):  # the name under which one model hands fields to the other
        for ask in (stream, unary):
            with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] 'json_fields' is neither"):
                ask(server.grpc_url, tensors(cases["text"]), parameters={"json_fields": packed})
    with pytest.raises(InferenceServerException, match="neither of input_ids and text_input"):
        unary(server.grpc_url, {"return_finish_reason": np.array([True])})


def test_sampling_over_the_wire(server: TritonServer, cases: dict[str, Case]) -> None:
    warm = {"temperature": 1.0, "seed": 4, "max_tokens": 8}
    results = {stream(server.grpc_url, tensors(cases["text"], sampling=warm))[0] for _ in range(2)}
    assert len(results) == 1
    assert results != {cases["text"].expected[:8]}


@STREAMING
def test_leaving_a_stream_frees_the_slot(server: TritonServer, cases: dict[str, Case], model: str) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    with opened(server.grpc_url, tensors(cases["text"], sampling=LONG), model) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@UNARY
def test_leaving_a_unary_request_frees_the_slot(server: TritonServer, cases: dict[str, Case], model: str) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    errors: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        call = client.async_infer(
            model,
            inputs(grpcclient, tensors(cases["text"], sampling=LONG)),
            callback=lambda result, error: errors.put(error),
        )
        wait_for(lambda: published(server)["active_requests"] == 1)
        call.cancel()
        assert "CANCELLED" in str(errors.get(timeout=TIMEOUT_SECONDS))
    assert at_rest(server)["cancelled_requests_total"] == before + 1


@STREAMING
def test_cancel_ends_the_request_of_that_id_and_no_other(
    server: TritonServer, cases: dict[str, Case], model: str
) -> None:
    values = tensors(cases["text"], sampling=LONG)
    with (
        opened(server.grpc_url, values, model, request_id="one") as (_, ones),
        opened(server.grpc_url, values, model, request_id="other") as (_, others),
    ):
        ones.get(timeout=TIMEOUT_SECONDS)
        others.get(timeout=TIMEOUT_SECONDS)
        with opened(server.grpc_url, CANCEL, model, request_id="one"):
            while True:
                result, error = ones.get(timeout=TIMEOUT_SECONDS)
                assert error is None
                if is_final(result):
                    break
        assert result.as_numpy("finish_reason")[0] == b"cancelled"
        while not others.empty():
            assert not is_final(others.get()[0])
        assert not is_final(others.get(timeout=TIMEOUT_SECONDS)[0])
    with pytest.raises(InferenceServerException) as absent:
        stream(server.grpc_url, CANCEL, model, request_id="nobody")
    assert isinstance(from_wire(absent.value.message()), NotFound)


@UNARY
def test_cancel_of_an_unknown_id(server: TritonServer, model: str) -> None:
    with pytest.raises(InferenceServerException) as absent:
        unary(server.grpc_url, CANCEL, model=model, request_id="nobody")
    assert isinstance(from_wire(absent.value.message()), NotFound)
    assert absent.value.status() == "StatusCode.NOT_FOUND"


@STREAMING
def test_cancel_without_an_id(server: TritonServer, cases: dict[str, Case], model: str) -> None:
    """It would end every request that has no id: refused, and a stream without an id goes on."""
    with opened(server.grpc_url, tensors(cases["text"], sampling=LONG), model) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
        with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] cancel comes without a request id"):
            stream(server.grpc_url, CANCEL, model)
        for url, client in ((server.grpc_url, grpcclient), (server.http_url, httpclient)):
            with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] cancel comes without a request id"):
                unary(url, CANCEL, client)
        while not answers.empty():
            assert not is_final(answers.get()[0])
        assert not is_final(answers.get(timeout=TIMEOUT_SECONDS)[0])


def test_a_prompt_of_no_tokens(server: TritonServer, cases: dict[str, Case]) -> None:
    """Refused at every door, and no slot is taken."""
    for path in (f"{MODEL}/generate_stream", f"{MODEL}/generate", f"{UNARY_MODEL}/generate"):
        status, body = post(server, path, text_input="")
        assert (status, "[INVALID_ARG] the prompt has 0 tokens" in body) == (400, True), body
    with pytest.raises(InferenceServerException, match="the prompt has 0 tokens"):
        stream(server.grpc_url, {"text_input": ""})
    assert at_rest(server)["active_requests"] == 0


def test_cancel_request_of_a_unary_one(server: TritonServer, cases: dict[str, Case]) -> None:
    before = at_rest(server)["output_tokens_total"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(unary, server.http_url, tensors(cases["text"], sampling=LONG), httpclient, request_id="u")
        wait_for(lambda: published(server)["output_tokens_total"] > before)
        unary(server.http_url, CANCEL, httpclient, request_id="u")
        result = running.result(TIMEOUT_SECONDS)
    assert result.as_numpy("finish_reason")[0] == b"cancelled"
    assert len(result.as_numpy("token_ids")) > 0


def test_a_deadline_ends_a_request(server: TritonServer, cases: dict[str, Case]) -> None:
    result = unary(server.grpc_url, tensors(cases["text"], sampling=LONG), timeout=1_000_000)  # microseconds
    assert result.as_numpy("finish_reason")[0] == b"cancelled"
    assert result.as_numpy("token_ids").size


@STREAMING
def test_a_deadline_before_the_first_token(server: TritonServer, cases: dict[str, Case], model: str) -> None:
    values = tensors(cases["text"])
    with pytest.raises(InferenceServerException) as streamed:
        stream(server.grpc_url, values, model, timeout=1)
    with pytest.raises(InferenceServerException) as over_http:
        unary(server.http_url, values, httpclient, timeout=1)
    assert over_http.value.status() == "503"
    for error in (streamed, over_http):
        assert isinstance(from_wire(error.value.message()), DeadlineExceeded)
        assert "before the first token" in error.value.message()
    assert stream(server.grpc_url, values)[0] == cases["text"].expected


def test_a_full_server_says_so(reference: Reference, cases: dict[str, Case]) -> None:
    limits = Limits(max_active=1, max_waiting=0)
    long, short = tensors(cases["text"], sampling=LONG), tensors(cases["one image"])
    with TritonServer(settings(reference.language, limits, dtype="fp32")) as small:
        with opened(small.grpc_url, long) as (_, answers):
            answers.get(timeout=TIMEOUT_SECONDS)
            with pytest.raises(InferenceServerException) as streamed:
                stream(small.grpc_url, short)
            assert isinstance(from_wire(streamed.value.message()), Unavailable)
            with pytest.raises(InferenceServerException) as refused:
                unary(small.http_url, short, httpclient)
            assert refused.value.status() == "503"
        assert at_rest(small)["cancelled_requests_total"] == 1
        assert stream(small.grpc_url, short)[0] == cases["one image"].expected
