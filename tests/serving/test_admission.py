"""Who may run: memory for keys and values, slots, a fair queue, and an end to waiting."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from contract.errors import DeadlineExceeded, InvalidInput, Unavailable
from contract.limits import Limits
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.transformers_engine import sequence
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.kv import kv_bytes
from tests.serving.reference import Case, Reference
from tests.waiting import until

LONG = Sampling(max_tokens=1000, ignore_eos=True)


@pytest.fixture(scope="module")
def model(reference: Reference) -> Any:
    return load_language_model(reference.language, "fp32")


@pytest.fixture
def start(model: Any) -> Iterator[Any]:
    """Engines under limits, closed at the end."""
    engines = []

    def made(**limits: Any) -> Any:
        engines.append(TransformersEngine(model, Limits(**limits)))
        return engines[-1]

    yield made
    for engine in engines:
        engine.close()


def need(model: Any, prompt: Prompt, sampling: Sampling) -> Any:
    return kv_bytes(model, prompt.input_ids.size + sampling.max_tokens)


async def collect(engine: TransformersEngine, prompt: Prompt, sampling: Sampling) -> Any:
    return tuple([t async for delta in engine.generate(prompt, sampling) for t in delta.token_ids])


def num_present(stats: Any) -> Any:
    return stats.num_active + stats.num_waiting


def test_a_request_too_large_for_the_memory_is_refused_with_both_numbers(
    reference: Reference, cases: dict[str, Case], model: Any, start: Any
) -> None:
    prompt, sampling = cases["text"].prompt(reference.card), Sampling(max_tokens=20)
    bytes_needed = need(model, prompt, sampling)
    with pytest.raises(InvalidInput, match=rf"need {bytes_needed} bytes .* {bytes_needed - 1} are allowed"):
        asyncio.run(collect(start(max_kv_bytes=bytes_needed - 1), prompt, sampling))
    assert asyncio.run(collect(start(max_kv_bytes=bytes_needed), prompt, sampling)) == cases["text"].expected


def test_max_tokens_beyond_the_context_reserve_the_context_only(
    reference: Reference, cases: dict[str, Case], model: Any, start: Any
) -> None:
    engine = start(max_kv_bytes=kv_bytes(model, reference.card.max_position_embeddings))
    many = Sampling(max_tokens=100_000, stop_token_ids=(cases["text"].expected[2],))
    assert asyncio.run(collect(engine, cases["text"].prompt(reference.card), many)) == cases["text"].expected[:3]


def test_memory_is_never_overdrawn_and_the_queue_is_fair(
    reference: Reference, cases: dict[str, Case], model: Any, start: Any, gated: Any
) -> None:
    """A large request behind small ones is not overtaken by the small ones behind it, though they would fit."""
    small, large = cases["text"].prompt(reference.card), cases["mixed"].prompt(reference.card)
    short = Sampling(max_tokens=15)
    room = max(3 * need(model, small, short), need(model, large, short))
    engine, ends = start(max_kv_bytes=room), []

    async def one(name: Any, prompt: Prompt) -> Any:
        tokens = []
        async for delta in engine.generate(prompt, short):
            tokens += delta.token_ids
            stats = engine.stats()
            assert stats.kv_bytes <= stats.max_kv_bytes == room
        ends.append(name)
        return tuple(tokens)

    async def all_of_them() -> Any:
        tasks = []
        for name, prompt in (("a", small), ("b", small), ("large", large), ("c", small), ("d", small)):
            tasks.append(asyncio.create_task(one(name, prompt)))
            await until(lambda: num_present(engine.stats()) == len(tasks))
        gated.gate.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(all_of_them())
    expected = {"small": cases["text"].expected[:15], "large": cases["mixed"].expected[:15]}
    assert answers == [expected[kind] for kind in ("small", "small", "large", "small", "small")]
    assert [sorted(ends[:2]), ends[2], sorted(ends[3:])] == [["a", "b"], "large", ["c", "d"]]
    asyncio.run(until(lambda: not engine.stats().kv_bytes))


def test_waiting_ends_at_its_limit(reference: Reference, cases: dict[str, Case], start: Any) -> None:
    prompt = cases["text"].prompt(reference.card)
    engine = start(max_active=1, max_queue_seconds=0.2)

    async def run() -> Any:
        async with aclosing(engine.generate(prompt, LONG)) as running:
            await anext(running)
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
                await collect(engine, prompt, LONG)
            assert time.monotonic() - started >= 0.2
            await anext(running)  # goes on
        await until(lambda: not engine.stats().num_active)
        return await collect(engine, prompt, Sampling(max_tokens=20))

    assert asyncio.run(run()) == cases["text"].expected
    assert (engine.stats().num_failed, engine.stats().num_cancelled) == (1, 1)


def test_leaving_the_queue_counts_and_lets_the_next_in(
    reference: Reference, cases: dict[str, Case], start: Any
) -> None:
    prompt = cases["text"].prompt(reference.card)
    engine = start(max_active=1)

    async def run() -> None:
        async with aclosing(engine.generate(prompt, LONG)) as running:
            await anext(running)
            waiting = asyncio.create_task(collect(engine, prompt, LONG))
            await until(lambda: engine.stats().num_waiting == 1)
            waiting.cancel()
            await until(lambda: engine.stats().num_waiting == 0)
            assert (engine.stats().num_active, engine.stats().num_cancelled) == (1, 1)

    asyncio.run(run())


def test_no_memory_for_one_request_is_its_own_trouble(
    reference: Reference, cases: dict[str, Case], start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, real = start(), sequence.reserve
    monkeypatch.setattr(sequence, "reserve", lambda model, n: real(model, n if n < 1000 else 1 << 50))

    async def both() -> Any:
        prompt = cases["text"].prompt(reference.card)
        requests = (collect(engine, prompt, LONG), collect(engine, prompt, Sampling(max_tokens=20)))
        return await asyncio.gather(*requests, return_exceptions=True)

    failed, served = asyncio.run(both())
    assert isinstance(failed, Unavailable)
    assert "memory" in str(failed)
    assert served == cases["text"].expected
