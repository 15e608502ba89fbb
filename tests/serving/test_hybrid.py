"""Gated-delta layers beside attention: tokens are those of transformers' generate on the pixels, alone and together."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

from contract.sampling import Sampling
from contract.tasks import EMBED
from serving.transformers_engine.checkpoint import LanguageModel, load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.kv import kv_bytes, reserve
from serving.transformers_engine.recurrence import one_token
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference
from tests.serving.test_engine import answer, collect
from tests.serving.test_pooling import NEAR, embedding, pooled


@pytest.fixture(scope="module")
def cases(hybrid: Reference) -> dict[str, Case]:
    return hybrid.cases()


@pytest.fixture(scope="module")
def model(hybrid: Reference) -> LanguageModel:
    return load_language_model(hybrid.language, "fp32")


@pytest.fixture(scope="module", params=[7, 4096], ids=["chunks", "whole"])
def engine(model: LanguageModel, request: pytest.FixtureRequest) -> Iterator[Any]:
    engine = TransformersEngine(model, prefill_chunk_tokens=request.param)
    yield engine
    engine.close()


def test_tokens_equal_generate_alone(hybrid: Reference, cases: dict[str, Case], engine: TransformersEngine) -> None:
    assert len({case.expected for case in cases.values()}) == len(cases)  # the prompts matter
    for name, case in cases.items():
        assert answer(engine, case.prompt(hybrid.card))[0] == case.expected, name


def test_eight_at_once_and_an_embedding(hybrid: Reference, cases: dict[str, Case], engine: TransformersEngine) -> None:
    async def all_of_them() -> Any:
        answers = asyncio.gather(*(collect(engine, case.prompt(hybrid.card)) for case in cases.values()))
        return await asyncio.gather(answers, pooled(engine, cases["mixed"].prompt(hybrid.card), EMBED))

    found, vector = asyncio.run(all_of_them())
    assert [tokens for tokens, _, _ in found] == [case.expected for case in cases.values()]
    assert np.abs(vector - embedding(cases["mixed"])).max() < NEAR


def test_experts_alone_and_eight_at_once(tmp_path: Path) -> None:
    mixture = Reference(tmp_path, is_hybrid=True, is_moe=True)
    asked = mixture.cases()
    engine = TransformersEngine(load_language_model(mixture.language, "fp32"), prefill_chunk_tokens=32)

    async def together() -> Any:
        return await asyncio.gather(*(collect(engine, case.prompt(mixture.card)) for case in asked.values()))

    try:
        alone = [answer(engine, asked[name].prompt(mixture.card))[0] for name in ("mixed", "long text")]
        found = [tokens for tokens, _, _ in asyncio.run(together())]
    finally:
        engine.close()
    assert alone == [asked[name].expected for name in ("mixed", "long text")]
    assert found == [case.expected for case in asked.values()]
    assert len({case.expected for case in asked.values()}) == len(asked)


def test_a_failed_step_restores_the_states(
    hybrid: Reference, cases: dict[str, Case], model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last layer fails for a batch after the others have moved on; each request then runs alone from its snapshot."""
    failed, norm = [0], model.decoder.norm.forward

    def fails(hidden_states: torch.Tensor) -> torch.Tensor:
        if failed[0] % 3 == 0 and hidden_states.shape[1] in (2, 3):
            failed[0] += 1
            raise RuntimeError("a batch fails")
        failed[0] += hidden_states.shape[1] in (2, 3)
        found: torch.Tensor = norm(hidden_states)
        return found

    monkeypatch.setattr(model.decoder.norm, "forward", fails)
    engine = TransformersEngine(model)
    chosen = [cases[name] for name in ("one image", "multi-turn", "long text")]

    async def together() -> Any:
        return await asyncio.gather(*(collect(engine, case.prompt(hybrid.card)) for case in chosen))

    try:
        found = asyncio.run(together())
    finally:
        engine.close()
    assert failed[0] > 3
    assert [tokens for tokens, _, _ in found] == [case.expected for case in chosen]


def test_the_rule_of_one_token_is_transformers(model: LanguageModel) -> None:
    """Three sequences of their own states, two steps; a query head serves two value heads."""
    torch.manual_seed(5)
    layers = [reserve(model, 30).layers[0] for _ in range(3)]
    states = torch.randn(3, 4, 128, 128)
    for layer, state in zip(layers, states.split(1), strict=True):
        layer.recurrent = state
    for _ in range(2):
        query, key, value = torch.randn(3, 2, 128), torch.randn(3, 2, 128), torch.randn(3, 4, 128)
        beta, decay = torch.rand(3, 4), -torch.rand(3, 4)
        found, after = one_token(layers, query, key, value, beta, decay)
        one = (part[:, None] for part in (query, key, value))
        settings = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}
        expected, states = torch_recurrent_gated_delta_rule(
            *one, g=decay[:, None], beta=beta[:, None], initial_state=states, **settings
        )
        torch.testing.assert_close(found, expected[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat(after), states, atol=1e-5, rtol=1e-5)
        for layer, state in zip(layers, after, strict=True):
            layer.advance(layer.conv, state, 1)


def test_only_attention_costs_memory_by_the_token(model: LanguageModel) -> None:
    assert kv_bytes(model, 30) == 2 * 1 * 2 * 32 * 30 * 4  # one of four layers
    states = reserve(model, 30).layers
    assert [hasattr(layer, "recurrent") for layer in states] == [True, True, True, False]
    with pytest.raises(ValueError, match="the last step had 0 tokens, not 2"):
        states[0].crop(-2)


def test_a_state_that_is_lost_changes_tokens(
    hybrid: Reference, cases: dict[str, Case], model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that begin from nothing, and a convolution without its past: both show."""
    from serving.transformers_engine.state import StateLayer

    advance = StateLayer.advance
    prompt, expected = cases["long text"].prompt(hybrid.card), cases["long text"].expected
    for forgets in ("conv", "recurrent"):

        def forgetful(self: StateLayer, conv: Any, recurrent: Any, num_tokens: int, forgets: str = forgets) -> None:
            kept = {"conv": conv, "recurrent": recurrent} | {forgets: torch.zeros_like(locals()[forgets])}
            advance(self, kept["conv"], kept["recurrent"], num_tokens)

        with monkeypatch.context() as patch:
            patch.setattr(StateLayer, "advance", forgetful)
            engine = TransformersEngine(model, prefill_chunk_tokens=32)
            try:
                assert answer(engine, prompt, Sampling(max_tokens=MAX_NEW_TOKENS))[0] != expected, forgets
            finally:
                engine.close()
