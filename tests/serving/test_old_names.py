"""The old names of the served models, through a real Triton: what the new ones answer, refuse and end, they do too.

test_errors sends every refusal through them, test_thin_client the old name of the vision model.
"""

import http.client
import json
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from contract.errors import DeadlineExceeded, NotFound, from_wire
from contract.names import MODEL, UNARY_MODEL
from serving.triton.launcher import TritonServer
from tests.scrape import at_rest, fresh, published, wait_for
from tests.serving.reference import MAX_NEW_TOKENS, Case
from tests.serving.test_doors import curl, events
from tests.serving.test_triton import ALL, LONG
from tests.serving.wire import TIMEOUT_SECONDS, grpcclient, httpclient, inputs, is_final, opened, stream, tensors, unary

OLD, OLD_UNARY = "qwen3_vl", "qwen3_vl_unary"
CANCEL = {"cancel": np.array([True])}


def test_answers_are_the_same(server: TritonServer, cases: dict[str, Case]) -> None:
    """All cases at once, each through both old names."""
    with ThreadPoolExecutor(2 * len(ALL)) as pool:
        streams = [pool.submit(stream, server.grpc_url, tensors(cases[name]), OLD) for name in ALL]
        wholes = [pool.submit(unary, server.http_url, tensors(cases[n]), httpclient, OLD_UNARY) for n in ALL]
        assert [one.result()[0] for one in streams] == [cases[name].expected for name in ALL]
        assert [tuple(one.result().as_numpy("token_ids")) for one in wholes] == [cases[name].expected for name in ALL]


def responses(server: TritonServer, values: dict[str, Any], model: str) -> list[tuple[str, bool, dict[str, Any]]]:
    """Id, final flag and outputs of every response of a stream."""
    found: list[tuple[str, bool, dict[str, Any]]] = []
    with opened(server.grpc_url, values, model, request_id="a name") as (_, answers):
        while not found or not found[-1][1]:
            result, error = answers.get(timeout=TIMEOUT_SECONDS)
            assert error is None
            reply = result.get_response()
            outputs = {output.name: result.as_numpy(output.name).tolist() for output in reply.outputs}
            found.append((reply.id, is_final(result), outputs))
    return found


@pytest.mark.parametrize(
    "wanted", [(), ("return_finish_reason",), ("return_num_input_tokens", "return_num_output_tokens")]
)
def test_every_response_is_the_same(server: TritonServer, cases: dict[str, Case], wanted: tuple[str, ...]) -> None:
    """Tensor by tensor, with what was asked for and nothing else; the last token's response is the final one."""
    values = tensors(cases["one image"], sampling={"logprobs": 2, "max_tokens": 5})
    del values["return_finish_reason"]
    values |= {name: np.array([True]) for name in wanted}
    found = responses(server, values, OLD)
    assert found == responses(server, values, MODEL)
    assert ("finish_reason" in found[0][2]) == ("return_finish_reason" in wanted)
    assert len(found) == 5


def test_curl(server: TritonServer, cases: dict[str, Case]) -> None:
    body = json.dumps({"text_input": "Tell me something.", "max_tokens": 6, "temperature": 0.7, "seed": 3})
    for verb, old, new in (("generate_stream", OLD, MODEL), ("generate", OLD_UNARY, UNARY_MODEL)):
        status, answer = curl(server, f"{old}/{verb}", body)
        expected = curl(server, f"{new}/{verb}", body)[1]
        assert (status, answer.replace(f'"{old}"', f'"{new}"')) == (200, expected)
    status, answer = curl(server, f"{OLD}/generate", json.dumps({"text_input": "Hi", "max_tokens": 3, "stream": False}))
    assert (status, len(json.loads(answer)["token_ids"])) == (200, 3)
    for model in (OLD, MODEL):
        status, answer = curl(server, f"{model}/generate_stream", json.dumps({"text_input": "Hi", "temperature": -1}))
        (event,) = events(answer)
        assert status == 400
        assert event["error"].startswith("[INVALID_ARG] sampling_parameters.temperature is -1")
        status, answer = curl(server, f"{model}/generate_stream", json.dumps({"max_tokens": 3}))
        assert (status, "neither of input_ids and text_input" in answer) == (400, True)


def test_requests_that_share_a_stream(server: TritonServer, cases: dict[str, Case]) -> None:
    """Both names on one stream, each request with its own tokens in order."""
    names = {"text": OLD, "one image": MODEL, "video": OLD, "mixed": OLD}
    found: dict[str, list[int]] = {name: [] for name in names}
    answers: queue.Queue[Any] = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for name, model in names.items():
            client.async_stream_infer(model, inputs(grpcclient, tensors(cases[name])), request_id=name)
        left = len(names)
        while left:
            result, error = answers.get(timeout=TIMEOUT_SECONDS)
            assert error is None
            found[result.get_response().id] += result.as_numpy("token_ids").tolist()
            left -= is_final(result)
        client.stop_stream()
    assert found == {name: list(cases[name].expected) for name in names}


def test_leaving_a_stream_frees_the_slot(server: TritonServer, cases: dict[str, Case]) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    with opened(server.grpc_url, tensors(cases["text"], sampling=LONG), OLD) as (_, answers):
        answers.get(timeout=TIMEOUT_SECONDS)
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_a_closed_http_stream(server: TritonServer) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    connection = http.client.HTTPConnection(server.http_url, timeout=TIMEOUT_SECONDS)
    body = {"text_input": "Tell me something.", "sampling_parameters": json.dumps(LONG)}
    connection.request("POST", f"/v2/models/{OLD}/generate_stream", json.dumps(body))
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    assert fresh(server)["cancelled_requests_total"] == before
    answer.close()
    connection.close()
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_leaving_a_unary_request_frees_the_slot(server: TritonServer, cases: dict[str, Case]) -> None:
    before = at_rest(server)["cancelled_requests_total"]
    errors: queue.Queue[Any] = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        call = client.async_infer(
            OLD_UNARY,
            inputs(grpcclient, tensors(cases["text"], sampling=LONG)),
            callback=lambda result, error: errors.put(error),
        )
        wait_for(lambda: published(server)["active_requests"] == 1)
        call.cancel()
        assert "CANCELLED" in str(errors.get(timeout=TIMEOUT_SECONDS))
    assert at_rest(server)["cancelled_requests_total"] == before + 1


def test_cancel_ends_the_request_of_that_id_and_no_other(server: TritonServer, cases: dict[str, Case]) -> None:
    values = tensors(cases["text"], sampling=LONG)
    with (
        opened(server.grpc_url, values, OLD, request_id="one") as (_, ones),
        opened(server.grpc_url, values, OLD, request_id="other") as (_, others),
    ):
        ones.get(timeout=TIMEOUT_SECONDS)
        others.get(timeout=TIMEOUT_SECONDS)
        with opened(server.grpc_url, CANCEL, OLD, request_id="one"):
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
        stream(server.grpc_url, CANCEL, OLD, request_id="nobody")
    assert isinstance(from_wire(absent.value.message()), NotFound)
    with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] cancel comes without a request id"):
        stream(server.grpc_url, CANCEL, OLD)


def test_deadlines(server: TritonServer, cases: dict[str, Case]) -> None:
    values = tensors(cases["text"], sampling=LONG)
    tokens, _, reason = stream(server.grpc_url, values, OLD, timeout=1_000_000)  # microseconds
    assert (reason, 0 < len(tokens) < LONG["max_tokens"]) == ("cancelled", True)
    with pytest.raises(InferenceServerException) as late:
        stream(server.grpc_url, values, OLD, timeout=1)
    assert isinstance(from_wire(late.value.message()), DeadlineExceeded)


def test_a_key_is_known_under_both_names(server: TritonServer, cases: dict[str, Case]) -> None:
    case = cases["one image"]
    kept = unary(server.http_url, tensors(case, sampling={"max_tokens": 0}), httpclient, OLD_UNARY)
    key = kept.as_numpy("vision_keys")[0].decode()
    question = {"text_input": "See <|vision_start|><|image_pad|><|vision_end|> what is it?", "vision_keys": [key]}
    for model in (OLD, MODEL):
        _, answer = curl(server, f"{model}/generate_stream", json.dumps(question | {"max_tokens": MAX_NEW_TOKENS}))
        assert tuple(event["token_ids"] for event in events(answer)) == case.expected


def test_configuration_and_statistics(server: TritonServer) -> None:
    with httpclient.InferenceServerClient(server.http_url) as client:
        for old, new in ((OLD, MODEL), (OLD_UNARY, UNARY_MODEL)):
            assert client.is_model_ready(old)
            assert client.get_model_config(old)["parameters"] == client.get_model_config(new)["parameters"]
            found, expected = client.get_model_metadata(old), client.get_model_metadata(new)
            assert (found["inputs"], found["outputs"]) == (expected["inputs"], expected["outputs"])
