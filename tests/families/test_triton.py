"""Each tile family through a real Triton, at every door: tokens are those of transformers' `generate` on the pixels."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.http as httpclient

from contract import families
from contract.names import UNARY_MODEL, VISION_MODEL
from edge_runtime import GrpcClient, HttpClient, Request
from edge_runtime.encoded_item import PRECISIONS
from serving.triton.launcher import TritonServer
from tests.families.models import picture
from tests.families.served import CONVERSATIONS, GREEDY, NUM_TOKENS, Served, conversations, png
from tests.gateway.gateway_process import gateway_process
from tests.serving.wire import inputs

SHOWN = CONVERSATIONS["two pictures of different sizes"]


def streamed(client: GrpcClient | HttpClient, request: Request) -> list[int]:
    return [token for delta in client.stream(request, GREEDY) for token in delta.token_ids]


def test_tokens_over_grpc_alone_together_and_by_key(served: Served, server: TritonServer) -> None:
    """Pictures of several sizes, videos, several turns, eight requests at once; a picture that was sent before travels as its key."""
    asked = conversations(served.card.family)
    requests = [served.request(turns) for turns in asked.values()]
    expected = [served.expected(turns) for turns in asked.values()]
    with GrpcClient(server.grpc_url, precision="fp32") as client, ThreadPoolExecutor(8) as pool:
        assert [streamed(client, request) for request in requests] == expected
        assert list(pool.map(lambda request: streamed(client, request), requests * 2)) == expected * 2
        again = list(client.stream(served.request(SHOWN), GREEDY))
    assert again[-1].num_uploaded == 0


def test_tokens_over_http(served: Served, server: TritonServer) -> None:
    """A stream of server-sent events, and one request with one answer."""
    expected = served.expected(SHOWN)
    with HttpClient(server.http_url, precision="fp32") as client:
        assert streamed(client, served.request(SHOWN)) == expected
        assert list(client.infer(served.request(SHOWN), GREEDY).token_ids) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_codec_and_shared_memory(served: Served, server: TritonServer, precision: Any) -> None:
    """The server's answer is that to the rows which the codec leaves, however they reach it."""
    request = served.request(SHOWN)
    expected = asyncio.run(served.answer(served.prompt(request, precision)))
    ways = (GrpcClient(server.grpc_url, precision=precision), HttpClient(server.http_url, precision=precision))
    for client in (*ways, GrpcClient(server.grpc_url, precision=precision, shared_memory=True)):
        with client:
            deltas = list(client.stream(served.request(SHOWN), GREEDY))
        assert [token for delta in deltas for token in delta.token_ids] == expected
        assert list(deltas[0].vision_keys) == request.keys(precision)


def test_a_client_that_cannot_encode(served: Served, server: TritonServer) -> None:
    """A picture's file gives the rows and keys of the device, and the question by key its answer."""
    content = [[picture(90, 60, 1), "What is it?"]]
    request = served.request(content)
    with httpclient.InferenceServerClient(server.http_url) as client:
        sent = httpclient.InferInput("image", [1], "BYTES")
        sent.set_data_from_numpy(np.array([png(picture(90, 60, 1))], np.object_))
        rows = client.infer(VISION_MODEL, [sent])
        np.testing.assert_array_equal(rows.as_numpy("vision_embeddings"), request.main.astype(np.float16))
        np.testing.assert_array_equal(rows.as_numpy("image_grid_thw"), request.image_grid_thw)
        (key,) = rows.as_numpy("vision_keys")
        assert [key.decode()] == request.keys("fp16")
        asked = {
            "input_ids": request.input_ids,
            "vision_keys": key.decode(),
            "sampling_parameters": f'{{"max_tokens": {NUM_TOKENS}, "ignore_eos": true}}',
        }
        answer = client.infer(UNARY_MODEL, inputs(httpclient, asked))
    assert answer.as_numpy("token_ids").tolist() == served.expected(content)


def test_the_gateway_says_what_the_model_says(served: Served, server: TritonServer) -> None:
    content = CONVERSATIONS["one picture"]
    url = "data:image/png;base64," + base64.b64encode(png(content[0][0])).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": content[0][1]}]
    expected = served.reference.tokenizer.decode(served.expected(content), skip_special_tokens=True)
    flags = ("--precision", "fp32")
    with gateway_process(served.bundle, server.grpc_url, *flags) as gateway, gateway.client() as client:
        model = next(iter(client.models.list()))
        answer = client.chat.completions.create(
            model=model.id,
            messages=[{"role": "user", "content": parts}],  # type: ignore[list-item, misc]
            max_tokens=NUM_TOKENS,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    assert answer.choices[0].message.content == expected


def test_the_server_publishes_the_family(served: Served, server: TritonServer) -> None:
    with GrpcClient(server.grpc_url) as client:
        published = client.parameters()
    family = families.find(served.card.family)
    assert published["family"] == served.card.family
    assert (published["layout"], published["positions"]) == (family.LAYOUT, family.POSITIONS) == ("rows", "1d")
