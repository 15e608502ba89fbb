"""vLLM's pooling runner against transformers' own model on the pixels, one at a time and all at once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import InvalidInput
from contract.limits import Limits
from contract.tasks import EMBED, SCORE
from serving.vllm.engine import VllmEngine
from tests.serving.reference import Case, Reference
from tests.serving.test_pooling import NEAR, embedding, pooled, reranker, score  # noqa: F401
from tests.vllm.conftest import KV_BYTES, LOOP, run


@pytest.fixture(scope="module")
def pooling(reranker: Path) -> Iterator[VllmEngine]:  # noqa: F811
    arguments = {"block_size": 32, "runner": "pooling"}
    engine = VllmEngine.load(reranker, Limits(max_kv_bytes=KV_BYTES, max_active=8), LOOP, "fp32", 1, arguments)
    yield engine
    assert not engine.is_dead()
    engine.close()


def test_all_at_once(reference: Reference, cases: dict[str, Case], pooling: VllmEngine, reranker: Path) -> None:  # noqa: F811
    prompts = [case.prompt(reference.card) for case in cases.values()]

    async def everything(task: str) -> list[np.ndarray]:
        return await asyncio.gather(*(pooled(pooling, prompt, task) for prompt in prompts))

    for case, embed, one in zip(cases.values(), run(everything(EMBED)), run(everything(SCORE)), strict=True):
        assert np.abs(embed - embedding(case)).max() < NEAR
        assert one == pytest.approx([score(case, reference, reranker)], abs=NEAR)
    assert pooling.stats().num_active == 0


def test_a_runner_that_is_none(reference: Reference) -> None:
    with pytest.raises(InvalidInput, match="'runner' 'draft', allowed are 'generate'"):
        VllmEngine.load(reference.language, Limits(), LOOP, "fp32", 1, {"runner": "draft"})
