"""A gateway on the bundle of an embedding model: vectors without any server, and refusals of what it cannot embed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Embedder
from edge_runtime.vectors import shortened
from export.vision import export_vision
from tests.families.models import picture
from tests.families.test_embedder import TEXTS, write
from tests.gateway.drawings import data_url
from tests.gateway.gateway_process import Gateway, gateway_process

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    export_vision(str(write("clip", folder / "model")), folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def gateway(bundle: Path) -> Iterator[Gateway]:
    with gateway_process(bundle, NOBODY) as gateway:
        yield gateway


def test_vectors_are_the_embedders(gateway: Gateway, bundle: Path) -> None:
    embedder, shown = Embedder.from_bundle(bundle, threads=1), picture(90, 60, 1)
    client = gateway.client()
    answer = client.embeddings.create(model="edge_vlm", input=TEXTS)
    found = np.array([one.embedding for one in answer.data], np.float32)
    assert np.allclose(found, shortened(embedder.texts(TEXTS), None), atol=1e-5)
    assert answer.usage.prompt_tokens == sum(map(embedder.num_tokens, TEXTS))
    body = {"input": [{"image": data_url(shown)}, "a"], "dimensions": 7}
    status, said, _ = gateway.ask("/v1/embeddings", body)
    assert status == 200, said
    expected = shortened(np.concatenate([embedder.pictures([shown]), embedder.texts(["a"])]), 7)
    assert np.allclose([one["embedding"] for one in said["data"]], expected, atol=1e-5)
    assert gateway.ask("/ready")[0] == 200
    assert gateway.ask("/v1/models")[1]["data"][0]["max_model_len"] == embedder.manifest.max_text_tokens


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": [1, 2]}, 400, "input"),
        ({"messages": [{"role": "user", "content": "a"}]}, 400, "messages"),
        ({"input": [{"text": "a", "image": data_url(picture(9, 9))}]}, 400, "input.[0]"),
        ({"input": ["a", "y" * 200]}, 400, "input.[1]"),
        ({"input": "y" * 70000}, 400, "input"),
        ({"input": {"image": "data:image/png;base64,AAAA"}}, 400, "input"),
        ({"input": {"image": data_url(picture(3000, 3))}}, 400, "input"),
        (
            {"input": {"content": [{"type": "image_url", "image_url": data_url(picture(9, 9)), "max_pixels": 4096}]}},
            400,
            "input",
        ),
        ({"input": {"video": data_url(picture(9, 9))}}, 400, "input"),
        ({"input": "a", "dimensions": 33}, 400, "dimensions"),
        ({"input": "a", "task": "sing"}, 400, "task"),
        ({"input": "a", "instruction": "b"}, 400, "instruction"),
    ],
)
def test_what_it_cannot_embed_is_refused(gateway: Gateway, body: dict[str, Any], status: int, param: str) -> None:
    found, said, _ = gateway.ask("/v1/embeddings", body)
    assert (found, said["error"]["param"]) == (status, param), said
    assert gateway.ask("/v1/embeddings", {"input": "a"})[0] == 200
    assert gateway.ask("/v1/chat/completions", {"messages": []})[0] == 404


def test_a_gateway_of_texts_alone_refuses_pictures(bundle: Path) -> None:
    with gateway_process(bundle, NOBODY, "--limit-mm-per-prompt", '{"image": 0, "video": 0}') as texts:
        for kind in ("image", "video"):
            status, said, _ = texts.ask("/v1/embeddings", {"input": ["a", {kind: data_url(picture(9, 9))}]})
            assert (status, said["error"]["param"]) == (400, "input.[1]"), said
            assert f"the request has 1 {kind}s, 0 are allowed" in said["error"]["message"]
        assert texts.ask("/v1/embeddings", {"input": "a"})[0] == 200
