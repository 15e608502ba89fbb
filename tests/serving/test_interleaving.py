"""Whatever runs beside it, a stream answers what transformers' generate answers alone: any arrivals, lengths, cancels."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.limits import Limits
from contract.sampling import Sampling
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.kv import kv_bytes
from tests.serving.reference import MAX_NEW_TOKENS, Case, forced_logprobs

MAX_REQUESTS = 5
HEALTHY = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@dataclass(frozen=True)
class Visit:
    """A request: it comes when so many tokens were given out to all, and leaves after `stays` of its own, if ever."""

    case: int
    num_tokens: int
    comes: int
    stays: int


visits = st.lists(
    st.builds(
        Visit,
        case=st.integers(0, 7),
        num_tokens=st.integers(1, MAX_NEW_TOKENS),
        comes=st.integers(0, 40),
        stays=st.integers(1, 2 * MAX_NEW_TOKENS),
    ),
    min_size=1,
    max_size=MAX_REQUESTS,
)


async def attend(engine: TransformersEngine, card: Any, cases: dict[str, Case], planned: Any) -> Any:
    """The tokens of every visit, in order."""
    given_out, running = 0, 0

    async def one(visit: Any) -> Any:
        nonlocal given_out, running
        while given_out < visit.comes and running:
            await asyncio.sleep(0.0005)
        running += 1
        tokens = []
        prompt = cases[visit.case].prompt(card)
        async with aclosing(engine.generate(prompt, Sampling(max_tokens=visit.num_tokens))) as deltas:
            async for delta in deltas:
                tokens += delta.token_ids
                given_out += 1
                if len(tokens) == visit.stays:
                    break
        running -= 1
        return tuple(tokens)

    answers = await asyncio.gather(*map(one, planned))
    while engine.stats().num_active:
        await asyncio.sleep(0.0005)
    return answers


@pytest.fixture(scope="module", params=["dense", "mixture of experts"])
def kind(request: pytest.FixtureRequest) -> Any:
    reference = request.getfixturevalue("reference" if request.param == "dense" else "mixture")
    cases = request.getfixturevalue("cases") if request.param == "dense" else reference.cases()
    return load_language_model(reference.language, "fp32"), reference.card, list(cases.values())


@settings(max_examples=12, deadline=None, suppress_health_check=HEALTHY)
@given(
    planned=visits,
    chunk=st.sampled_from([3, 10, 47, 512]),
    max_active=st.integers(1, MAX_REQUESTS),
    room=st.integers(1, 3),
)
def test_tokens_are_those_of_generate_alone(
    kind: Any, caplog: pytest.LogCaptureFixture, planned: Any, chunk: Any, max_active: Any, room: Any
) -> None:
    model, card, cases = kind
    largest = max(len(case.input_ids) for case in cases) + MAX_NEW_TOKENS
    limits = Limits(max_active=max_active, max_kv_bytes=room * kv_bytes(model, largest))
    engine = TransformersEngine(model, limits, chunk)
    answers = asyncio.run(asyncio.wait_for(attend(engine, card, cases, planned), 60))
    engine.close()
    for visit, tokens in zip(planned, answers, strict=True):
        assert tokens == cases[visit.case].expected[: min(visit.num_tokens, visit.stays)]
    assert not caplog.records  # a failed step, repeated for each alone, would hide here
    stats = engine.stats()
    assert (stats.num_finished + stats.num_cancelled, stats.num_failed) == (len(planned), 0)
    assert (stats.kv_bytes, stats.num_active, stats.num_waiting) == (0, 0, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 0.06), ("fp16", 0.01)])
def test_low_precision_rounds_as_transformers_does(
    kind: Any, request: pytest.FixtureRequest, dtype: str, tolerance: float
) -> None:
    """The same weights in the same format: eight answers made together against transformers' one pass over each."""
    _, card, cases = kind
    reference = request.getfixturevalue("mixture" if card.family.endswith("moe") else "reference")
    model = load_language_model(reference.language, dtype)
    original = type(reference.model).from_pretrained(reference.full, dtype=model.dtype).eval()
    engine = TransformersEngine(model, prefill_chunk_tokens=50)

    async def one(case: Case) -> Any:
        sampling = Sampling(max_tokens=MAX_NEW_TOKENS, logprobs=0)
        return [t for d in [d async for d in engine.generate(case.prompt(card), sampling)] for t in d.logprobs]

    async def together() -> Any:
        return await asyncio.gather(*map(one, cases))

    for case, answer in zip(cases, asyncio.run(together()), strict=True):
        expected = forced_logprobs(original, case.prompt(card), card, tuple(token.id for token in answer))
        got = torch.tensor([token.logprob for token in answer])
        chosen = expected.gather(1, torch.tensor([token.id for token in answer])[:, None])[:, 0]
        assert (chosen - got).abs().max() < tolerance
        assert (expected.max(dim=1).values - chosen).max() < tolerance  # greedy, up to rounding
    engine.close()
