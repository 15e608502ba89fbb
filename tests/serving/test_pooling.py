"""Embeddings and scores: those of transformers' own model on the pixels, alone, together, and beside answers."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tritonclient.utils import InferenceServerException

from contract.limits import Limits
from contract.names import MODEL
from contract.prompt import Prompt
from contract.sampling import Sampling
from contract.tasks import EMBED, GENERATE, SCORE
from serving.engine import Delta
from serving.settings import Settings
from serving.tasks import served_tasks
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.triton.launcher import TritonServer
from tests.engine import ENGINE
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference, remove_tensor
from tests.serving.test_triton import post
from tests.serving.wire import grpcclient, httpclient, opened, tensors, unary

NEAR = 2e-5


@pytest.fixture(scope="module")
def reranker(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_answers(reference, tmp_path_factory.mktemp("reranker") / "language")


def with_answers(reference: Reference, folder: Path) -> Path:
    """Write the reference's language model with a vocabulary that has the tokens yes and no."""
    shutil.copytree(reference.language, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("yes", single_word=True), AddedToken("no", single_word=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def embedding(case: Case) -> NDArray[np.float32]:
    return case.state / np.linalg.norm(case.state)


def score(case: Case, reference: Reference, folder: Path) -> float:
    """The reranker's formula: the two rows of the projection, one minus the other."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weight = reference.model.lm_head.weight.detach()
    row = weight[tokenizer.token_to_id("yes")] - weight[tokenizer.token_to_id("no")]
    return float(torch.sigmoid(row @ torch.from_numpy(case.state)))


async def pooled(engine: Any, prompt: Prompt, task: str) -> NDArray[np.float32]:
    (delta,) = [delta async for delta in engine.generate(prompt, Sampling(), task)]
    assert (delta.token_ids, delta.text, delta.finish_reason) == ((), "", "stop")
    assert delta.pooled is not None
    found: NDArray[np.float32] = delta.pooled
    return found


@pytest.mark.parametrize("chunk", [7, 4096])
def test_all_at_once_beside_answers(reference: Reference, cases: dict[str, Case], reranker: Path, chunk: int) -> None:
    """Chunks of a prompt, embeddings, scores and answers share steps; each is what transformers says of it alone."""
    engine = TransformersEngine(load_language_model(reranker, "fp32"), prefill_chunk_tokens=chunk)

    async def tokens(prompt: Prompt) -> tuple[int, ...]:
        deltas: list[Delta] = [d async for d in engine.generate(prompt, Sampling(max_tokens=MAX_NEW_TOKENS))]
        return tuple(token for delta in deltas for token in delta.token_ids)

    async def everything() -> Any:
        prompts = [case.prompt(reference.card) for case in cases.values()]
        embeds, scores = (
            map(pooled, [engine] * len(prompts), prompts, [task] * len(prompts)) for task in (EMBED, SCORE)
        )
        return await asyncio.gather(*(asyncio.gather(*works) for works in (embeds, scores, map(tokens, prompts))))

    try:
        embeds, scores, answers = asyncio.run(everything())
        assert engine.stats().kv_bytes == 0
    finally:
        engine.close()
    for case, embed, one, answer in zip(cases.values(), embeds, scores, answers, strict=True):
        assert embed.dtype == np.float32
        assert np.abs(embed - embedding(case)).max() < NEAR
        assert one == pytest.approx([score(case, reference, reranker)], abs=NEAR)
        assert answer == case.expected


def test_what_a_checkpoint_can_do(reference: Reference, reranker: Path, tmp_path: Path) -> None:
    remove_tensor(reranker, tmp_path / "headless", "lm_head.weight")
    for folder, tasks in (
        (reference.language, (GENERATE, EMBED)),
        (reranker, (GENERATE, EMBED, SCORE)),
        (tmp_path / "headless", (EMBED,)),
    ):
        assert served_tasks(Settings(str(folder))) == tasks
    pooling = {"runner": "pooling"}
    assert served_tasks(Settings(str(reranker), engine="vllm")) == (GENERATE,)
    assert served_tasks(Settings(str(reranker), engine="vllm", engine_args=pooling)) == (EMBED, SCORE)


def test_a_model_without_a_projection_embeds(reference: Reference, cases: dict[str, Case], tmp_path: Path) -> None:
    remove_tensor(reference.language, tmp_path / "language", "lm_head.weight")
    engine = TransformersEngine.load(tmp_path / "language", Limits(), "fp32")
    try:
        found = asyncio.run(pooled(engine, cases["mixed"].prompt(reference.card), EMBED))
    finally:
        engine.close()
    assert np.abs(found - embedding(cases["mixed"])).max() < NEAR


BY_TOKENS = pytest.mark.skipif(ENGINE == "vllm", reason="this server answers with tokens")


@BY_TOKENS
@pytest.mark.parametrize("name", ["text", "mixed"])
def test_through_triton(server: TritonServer, cases: dict[str, Case], name: str) -> None:
    """A stream over gRPC, one response over gRPC and HTTP, and plain JSON with the picture's key."""
    case = cases[name]
    values = tensors(case) | {"task": EMBED}
    expected = embedding(case)
    with opened(server.grpc_url, values) as (_, answers):
        result, error = answers.get(timeout=30)
    assert error is None
    assert np.abs(result.as_numpy("embedding") - expected).max() < NEAR
    assert result.as_numpy("finish_reason")[0] == b"stop"
    keys = [] if result.as_numpy("vision_keys") is None else [key.decode() for key in result.as_numpy("vision_keys")]
    for client, url in ((grpcclient, server.grpc_url), (httpclient, server.http_url)):
        answer = unary(url, values, client)
        assert np.abs(answer.as_numpy("embedding") - expected).max() < NEAR
        assert answer.as_numpy("score") is None
    ids = case.input_ids.tolist()
    more: dict[str, Any] = {"vision_keys": keys} if keys else {}
    status, said = post(server, f"{MODEL}/generate", input_ids=ids, task=EMBED, **more)
    assert status == 200, said
    assert np.abs(np.array(json.loads(said)["embedding"]) - expected).max() < NEAR


@BY_TOKENS
def test_an_unknown_task_is_refused_and_hurts_nobody(server: TritonServer, cases: dict[str, Case]) -> None:
    values = tensors(cases["one image"])
    with pytest.raises(InferenceServerException, match="task is 'sing', one of generate, embed, score is expected"):
        unary(server.grpc_url, values | {"task": "sing"})
    found = unary(server.grpc_url, values | {"task": EMBED}).as_numpy("embedding")
    assert np.abs(found - embedding(cases["one image"])).max() < NEAR
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        published = client.get_model_config(MODEL).config.parameters["tasks"].string_value
    assert published == "generate embed"
