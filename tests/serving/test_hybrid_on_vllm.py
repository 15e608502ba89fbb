"""Qwen3.5 on vLLM behind a real Triton: answers, prompts in pieces, embeddings and scores (`make test-vllm`)."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from contract.tasks import EMBED, SCORE
from serving.triton.launcher import TritonServer
from tests.engine import ENGINE, settings
from tests.serving.near_tie import NEAR_TIE, gap
from tests.serving.reference import Case, Reference
from tests.serving.test_pooling import embedding, with_answers
from tests.serving.test_pooling import score as scored
from tests.serving.wire import stream, tensors, unary

pytestmark = pytest.mark.skipif(ENGINE != "vllm", reason="tests/families/test_hybrid.py asks the other engine")
ROUNDED = 0.05  # bfloat16 against float32


@pytest.fixture(scope="module")
def cases(hybrid: Reference) -> dict[str, Case]:
    return hybrid.cases()


def test_prompts_in_pieces_alone_and_eight_at_once(hybrid: Reference, cases: dict[str, Case]) -> None:
    """A step takes 128 tokens, the longest prompt has 300."""
    assert cases["long text"].input_ids.size == 300
    arguments = {"max_num_batched_tokens": 128, "enable_prefix_caching": False, "block_size": 32}
    with TritonServer(settings(hybrid.language, engine_args=arguments)) as server:

        def answer(case: Case) -> tuple[int, ...]:
            return stream(server.grpc_url, tensors(case))[0]

        alone = list(map(answer, cases.values()))
        with ThreadPoolExecutor(len(cases)) as pool:
            together = list(pool.map(answer, cases.values()))
    for case, one, other in zip(cases.values(), alone, together, strict=True):
        assert gap(hybrid, case, one) < NEAR_TIE, case.name
        assert gap(hybrid, case, other) < NEAR_TIE, case.name
    assert gap(hybrid, cases["long text"], cases["text"].expected) > 10 * NEAR_TIE  # the judge does not like everything


def test_embeddings_and_scores(hybrid: Reference, cases: dict[str, Case], tmp_path: Path) -> None:
    folder = with_answers(hybrid, tmp_path / "reranker")
    with TritonServer(settings(folder, engine_args={"runner": "pooling", "block_size": 32})) as server:
        for case in cases.values():
            found = unary(server.grpc_url, tensors(case) | {"task": EMBED}).as_numpy("embedding")
            assert np.abs(found - embedding(case)).max() < ROUNDED, case.name
            found = unary(server.grpc_url, tensors(case) | {"task": SCORE}).as_numpy("score")
            assert found == pytest.approx([scored(case, hybrid, folder)], abs=ROUNDED), case.name
