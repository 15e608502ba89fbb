"""An answer of thousands of vectors: it has their values, and holds up no other answer while it is written."""

import asyncio
import json
import time
from typing import Any

import numpy as np
import pytest

from edge_runtime.gateway.embeddings import EmbeddingsRequest, read_embeddings
from edge_runtime.gateway.exchange import BLOCK_BYTES, Exchange
from edge_runtime.gateway.kinds import Kind


@pytest.mark.parametrize("num_vectors", [1, 2048])
def test_other_answers_go_on(num_vectors: int) -> None:
    """2,048 vectors of 4,096 values took the event loop 26 s, and their JSON lay in memory whole."""
    vectors = np.random.default_rng(0).standard_normal((num_vectors, 1024)).astype(np.float32)
    sent, gaps = list[dict[str, Any]](), list[float]()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    async def run() -> None:
        exchange = Exchange(Kind(read_embeddings, None), {"type": "http"}, receive, send)
        pieces = EmbeddingsRequest(()).pieces(list(vectors), 3, "name")
        writing = asyncio.create_task(exchange.send_pieces(pieces))
        while not writing.done():
            begun = time.monotonic()
            await asyncio.sleep(0)
            gaps.append(time.monotonic() - begun)
        writing.result()
        assert exchange.is_complete

    asyncio.run(run())
    bodies = [message["body"] for message in sent[1:]]
    answer = json.loads(b"".join(bodies))
    found = np.array([one["embedding"] for one in answer["data"]])
    assert np.allclose(found, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
    assert [one["index"] for one in answer["data"]] == list(range(num_vectors))
    assert (answer["object"], answer["model"], answer["usage"]["total_tokens"]) == ("list", "name", 3)
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(bodies) - 1) + [False]
    assert max(map(len, bodies)) < 2 * BLOCK_BYTES
    lengths = [value for name, value in sent[0]["headers"] if name == b"content-length"]
    assert lengths == ([b"%d" % len(bodies[0])] if num_vectors == 1 else [])
    assert len(gaps) > num_vectors  # the loop turned once for each vector at least
    assert max(gaps) < 2
