"""The old names of the served models, through a real Triton: what the new ones answer, they answer too.

test_life and test_triton end requests through both names, test_errors sends every refusal through them, test_doors lets
both share a stream, and test_thin_client asks the old name of the vision model.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from contract.names import MODEL, UNARY_MODEL
from serving.triton.launcher import TritonServer
from tests.serving.names import OLD, OLD_UNARY
from tests.serving.reference import MAX_NEW_TOKENS, Case
from tests.serving.test_doors import curl, events
from tests.serving.test_triton import ALL
from tests.serving.wire import TIMEOUT_SECONDS, httpclient, is_final, opened, stream, tensors, unary


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
