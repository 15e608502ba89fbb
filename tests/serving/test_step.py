"""A step: bounded, and a failure in it belongs to the request that causes it."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import InvalidInput, ServerError
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference

CHUNK = 16


@pytest.fixture(scope="module")
def model(reference: Reference) -> Any:
    return load_language_model(reference.language, "fp32")


@pytest.fixture
def engine(model: Any) -> Iterator[Any]:
    engine = TransformersEngine(model, prefill_chunk_tokens=CHUNK)
    yield engine
    engine.close()


def num_present(engine: TransformersEngine) -> Any:
    stats = engine.stats()
    return stats.num_active + stats.num_waiting


async def collect(engine: TransformersEngine, prompt: Prompt, num_tokens: Any = 20) -> Any:
    sampling = Sampling(max_tokens=num_tokens, ignore_eos=num_tokens > 20)
    return tuple([t async for delta in engine.generate(prompt, sampling) for t in delta.token_ids])


async def together(engine: TransformersEngine, *prompts: Any, num_tokens: Any = 20) -> Any:
    requests = (collect(engine, prompt, num_tokens) for prompt in prompts)
    return await asyncio.gather(*requests, return_exceptions=True)


def test_a_stream_waits_for_one_chunk_and_no_more(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, gated: Any
) -> None:
    """While two long prompts are read, every pass also has the running stream's next token, and a bounded rest."""
    prompts = [reference.case("long", "x" * length, seed=1).prompt(reference.card) for length in (301, 302)]

    async def run() -> None:
        endless = Sampling(max_tokens=1000, ignore_eos=True)
        stream = engine.generate(cases["text"].prompt(reference.card), endless)
        async with aclosing(stream):
            await anext(stream)
            gated.passes.clear()
            await asyncio.gather(*(collect(engine, prompt, 1) for prompt in prompts))

    gated.gate.set()
    asyncio.run(run())
    running = len(cases["text"].input_ids)
    reading = [step for step in gated.passes if any(prompt > 300 for prompt, _, _ in step)]
    assert len(reading) >= (301 + 302) / CHUNK
    for step in reading:
        assert [end - start for prompt, start, end in step if prompt == running] == [1]
        assert sum(end - start for prompt, start, end in step if prompt > 300) <= CHUNK


def test_running_streams_share_every_pass(reference: Reference, cases: dict[str, Case], model: Any, gated: Any) -> None:
    engine = TransformersEngine(model, prefill_chunk_tokens=1000)
    prompts = [case.prompt(reference.card) for case in cases.values()]

    async def run() -> Any:
        answers = asyncio.create_task(together(engine, *prompts))
        await gated.open_when(lambda: num_present(engine) == len(cases))
        return await answers

    assert asyncio.run(run()) == [case.expected for case in cases.values()]
    sizes = [len(step) for step in gated.passes]
    assert max(sizes) == len(cases)
    assert len(sizes) <= 1 + MAX_NEW_TOKENS  # one at a time it would be eight times as many
    engine.close()


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch, model: Any) -> Iterator[Any]:
    """Makes passes raise `error` after the second layer when they hold a token of the prompt; they have begun to write then."""

    def set_(case: Case, error: Any) -> None:
        sick = len(case.input_ids)
        layer = model.decoder.layers[2]

        def broken(module: Any, args: Any, kwargs: Any) -> None:
            if any(piece.sequence.num_prompt_tokens == sick and piece.start for piece in kwargs["pieces"]):
                raise error

        handle = layer.register_forward_pre_hook(broken, with_kwargs=True)
        handles.append(handle)

    handles = []
    yield set_
    for handle in handles:
        handle.remove()


def test_a_failing_request_is_found_and_the_others_go_on(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, poison: Any
) -> None:
    poison(cases["mixed"], RuntimeError("no kernel for this"))
    answers = asyncio.run(together(engine, *(case.prompt(reference.card) for case in cases.values())))
    for case, answer in zip(cases.values(), answers, strict=True):
        if case.name == "mixed":
            assert isinstance(answer, ServerError)
            assert "kernel" not in str(answer)  # what failed inside is for the log
        else:
            assert answer == case.expected
    assert engine.stats().num_failed == 1
    assert not engine.is_dead()


def test_values_that_are_not_finite_stay_in_their_row(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    sick = cases["mixed"]
    huge = sick.prompt(reference.card, deepstack_embeddings=np.full_like(sick.deepstack, 3e38))
    prompts = [huge if case is sick else case.prompt(reference.card) for case in cases.values()]
    for case, answer in zip(cases.values(), asyncio.run(together(engine, *prompts)), strict=True):
        assert isinstance(answer, InvalidInput) if case is sick else answer == case.expected


def test_a_lost_device_ends_the_engine(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, poison: Any
) -> None:
    poison(cases["mixed"], torch.AcceleratorError("an illegal memory access was encountered"))
    prompts = [case.prompt(reference.card) for case in cases.values()]
    answers = asyncio.run(together(engine, *prompts, num_tokens=1000))
    assert all(isinstance(answer, ServerError) and "died" in str(answer) for answer in answers)
    assert engine.is_dead()
    assert (engine.stats().num_active, engine.stats().kv_bytes) == (0, 0)
    with pytest.raises(ServerError, match="died"):
        asyncio.run(collect(engine, cases["text"].prompt(reference.card)))
