"""The engine in its own process, against transformers' own generate on the pixels."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from contract.errors import DeadlineExceeded, InvalidInput, Unavailable
from contract.limits import Limits
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.vllm.engine import VllmEngine
from tests.serving.reference import MAX_NEW_TOKENS, VIDEO, Case, Reference
from tests.serving.test_rows import SHORT, checked, masks, whole_positions
from tests.serving.test_rows import answer as forced
from tests.vllm.conftest import KV_BYTES, LOOP, run
from tests.waiting import until

GREEDY = Sampling(max_tokens=MAX_NEW_TOKENS)
LONG = Sampling(max_tokens=1500, ignore_eos=True)
VISUAL = ("one image", "several sizes", "video", "mixed", "multi-turn", "two videos")
ALL = ("text", *VISUAL, "long text")
PIECES = (1, 16, 16), "What is it?", "Where is it?"


async def collect(engine: VllmEngine, prompt: Prompt, sampling: Sampling = GREEDY) -> Any:
    tokens, text, reason, logprobs = [], "", None, []
    async for delta in engine.generate(prompt, sampling):
        tokens += delta.token_ids
        text += delta.text
        logprobs += delta.logprobs
        reason = delta.finish_reason
    return tuple(tokens), text, reason, logprobs


def answer(engine: VllmEngine, prompt: Prompt, sampling: Sampling = GREEDY) -> Any:
    return run(collect(engine, prompt, sampling))


def test_dropped_rows_leave_every_token_at_its_place_in_the_whole_prompt(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine
) -> None:
    """Answers are transformers' at these positions; all at once, beside whole prompts. Counted anew they are others."""
    case, num_other = cases["video"], 0
    chosen = [masks(case, seed, drops=True, copies=seed == 2) for seed in range(3)]
    prompts = [checked(case, one, reference) for one in chosen]
    expected = []
    for one, prompt in zip(chosen, prompts, strict=True):
        positions, following = whole_positions(case, reference)
        is_token = np.ones(len(case.input_ids), bool)
        is_token[case.input_ids == VIDEO] = one.kept.ravel()
        expected.append(forced(prompt, positions[:, is_token], following, reference))
        size = prompt.input_ids.size
        num_other += forced(prompt, np.broadcast_to(np.arange(size), (3, size)), size, reference) != expected[-1]
    assert num_other

    async def together() -> Any:
        whole = [cases[name].prompt(reference.card) for name in ("video", "mixed")]
        return await asyncio.gather(*(collect(engine, prompt) for prompt in [*prompts, *whole]))

    found = [answered[0] for answered in run(together())]
    assert [tokens[:SHORT] for tokens in found[:3]] == expected
    assert found[3:] == [cases[name].expected for name in ("video", "mixed")]


@pytest.mark.parametrize("name", ALL)
def test_tokens_equal_transformers_on_the_pixels(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine, name: Any
) -> None:
    tokens, text, reason, _ = answer(engine, cases[name].prompt(reference.card))
    assert tokens == cases[name].expected
    assert text == reference.tokenizer.decode(tokens)
    assert reason == "length"


def test_concurrent_answers_equal_those_alone(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    async def all_of_them() -> Any:
        return await asyncio.gather(*(collect(engine, case.prompt(reference.card)) for case in cases.values()))

    assert [found[0] for found in run(all_of_them())] == [case.expected for case in cases.values()]


@pytest.mark.parametrize("name", VISUAL)
def test_deepstack_matters(reference: Reference, cases: dict[str, Case], engine: VllmEngine, name: Any) -> None:
    case = cases[name]
    absent = case.prompt(reference.card, deepstack_embeddings=np.zeros_like(case.deepstack))
    assert answer(engine, absent)[0] != case.expected


@pytest.mark.parametrize(
    "how", [{"is_wrapped": False}, {"between": "<|vision_start|><|vision_end|>"}], ids=["no marks", "stray marks"]
)
def test_frames_are_found_by_their_pads(reference: Reference, engine: VllmEngine, how: Any) -> None:
    """vLLM's own rule looks for `<|vision_start|>`: it would fail, or take another place for the frame."""
    case = reference.case("marks", "Watch ", (3, 8, 4), " and ", (1, 4, 8), " say", seed=21, **how)
    assert answer(engine, case.prompt(reference.card))[0] == case.expected


def test_tokens_come_one_by_one(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    async def count() -> Any:
        return [len(delta.token_ids) async for delta in engine.generate(cases["video"].prompt(reference.card), GREEDY)]

    counts = run(count())
    assert sum(counts) == MAX_NEW_TOKENS
    assert len(counts) > MAX_NEW_TOKENS // 2


def test_stop_strings_end_tokens_and_lengths(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    case = cases["text"]
    whole = reference.tokenizer.decode(case.expected)
    stop = whole[4:6]
    tokens, text, reason, _ = answer(engine, case.prompt(reference.card), Sampling(max_tokens=20, stop=(stop,)))
    assert (text, reason) == (whole[: whole.index(stop)], "stop")
    assert tokens == case.expected[: len(tokens)]
    by_id = Sampling(max_tokens=20, stop_token_ids=(case.expected[5],))
    assert answer(engine, case.prompt(reference.card), by_id)[0] == case.expected[:6]
    later = answer(engine, case.prompt(reference.card), replace(by_id, min_tokens=9))[0]
    assert case.expected[5] not in later[:8]


def test_a_seed_repeats_whatever_runs_beside(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    prompt = cases["one image"].prompt(reference.card)
    sampling = Sampling(max_tokens=12, temperature=1.0, top_k=50, top_p=0.95, seed=11)

    async def beside() -> Any:
        others = [collect(engine, cases[name].prompt(reference.card), GREEDY) for name in VISUAL]
        return (await asyncio.gather(collect(engine, prompt, sampling), *others))[0]

    first, other = answer(engine, prompt, sampling)[0], answer(engine, prompt, replace(sampling, seed=12))[0]
    assert run(beside())[0] == first
    assert other != first


def test_logprobs_are_those_of_the_raw_logits(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    case = cases["text"]
    sampling = replace(GREEDY, logprobs=3, repetition_penalty=1.3)
    tokens, _, _, found = answer(engine, case.prompt(reference.card), sampling)
    ids = torch.tensor([*case.input_ids.tolist(), *tokens])[None]
    with torch.no_grad():
        logits = reference.model(input_ids=ids).logits[0, len(case.input_ids) - 1 : -1]  # (tokens, V)
    expected = logits.log_softmax(-1)
    assert [one.id for one in found] == list(tokens)
    assert np.allclose([one.logprob for one in found], expected[range(len(tokens)), list(tokens)], atol=1e-4)
    best = expected.topk(3)
    assert [[other.id for other in one.top] for one in found] == best.indices.tolist()
    assert np.allclose([[other.logprob for other in one.top] for one in found], best.values, atol=1e-4)
    assert found[0].token == reference.tokenizer.decode([tokens[0]])


SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"choice": ["cat", "dog"]}, "cat|dog"),
        ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"json": SCHEMA}, r'\{"n": ?[123]\}'),
    ],
    ids=["choice", "regex", "json"],
)
def test_structured_outputs(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine, constraint: Any, pattern: str
) -> None:
    sampling = Sampling(max_tokens=30, structured_outputs=constraint)
    _, text, reason, _ = answer(engine, cases["one image"].prompt(reference.card), sampling)
    assert re.fullmatch(pattern, text)
    assert reason == "stop"
    if "json" in constraint:
        assert json.loads(text)["n"] in (1, 2, 3)


@pytest.mark.parametrize(
    "constraint", [{"regex": "("}, {"json": "{"}, {"colour": 1}, {}, {"regex": "a", "choice": ["b"]}]
)
def test_a_grammar_that_is_none_is_refused_alone(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine, constraint: Any
) -> None:
    with pytest.raises(InvalidInput):
        answer(engine, cases["text"].prompt(reference.card), Sampling(structured_outputs=constraint))
    assert answer(engine, cases["text"].prompt(reference.card))[0] == cases["text"].expected


def test_a_second_question_reuses_the_picture(
    reference: Reference, engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the content key, across prompts; another picture under the same tokens reuses nothing of it."""
    cached = []
    generate = engine._host.llm.generate

    async def watched(*args: Any, **named: Any) -> AsyncIterator[Any]:
        async for output in generate(*args, **named):
            cached.append(output.num_cached_tokens)
            yield output

    monkeypatch.setattr(engine._host.llm, "generate", watched)
    picture, *questions = PIECES
    first, second = (reference.case(text, picture, text, seed=31) for text in questions)
    other = reference.case("other", picture, questions[0], seed=32)
    for case in (first, second, other):
        assert answer(engine, case.prompt(reference.card))[0] == case.expected
    reused = [cached[i * len(cached) // 3] for i in range(3)]
    assert reused == [0, 64, 0]  # two blocks of 32 tokens; the third has the first tokens of the question


def test_leaving_frees_the_slot(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    before = engine.stats().num_cancelled

    async def leave() -> None:
        stream = engine.generate(cases["text"].prompt(reference.card), LONG)
        await anext(stream)
        assert engine.stats().num_active == 1
        assert engine.stats().kv_bytes > 0
        await stream.aclose()
        await until(lambda: engine.stats().num_active == 0)
        await until(lambda: engine._host.llm.get_num_unfinished_requests() == 0)
        task = asyncio.create_task(collect(engine, cases["text"].prompt(reference.card), LONG))
        await until(lambda: engine.stats().num_active == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: engine._host.llm.get_num_unfinished_requests() == 0)

    run(leave())
    assert engine.stats().num_cancelled == before + 2
    assert engine.stats().kv_bytes == 0


def test_the_core_sleeps_while_its_worker_computes(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine
) -> None:
    """vLLM's own wait takes as much of a processor as the model."""
    core = psutil.Process(engine._host.llm.engine_core.resources.engine_manager.processes[0].pid)
    worker = next(child for child in core.children() if child.name() == "VLLM::Worker")

    def cpu_seconds() -> Any:
        return np.array([sum(process.cpu_times()[:2]) for process in (core, worker)])  # user and system

    before = cpu_seconds()
    answer(engine, cases["text"].prompt(reference.card), LONG)
    of_core, of_worker = cpu_seconds() - before
    assert of_core < of_worker / 2


def test_too_long_for_the_cache(reference: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    prompt = cases["text"].prompt(reference.card)
    narrow = engine._max_tokens
    engine._max_tokens = 30
    with pytest.raises(InvalidInput, match="room for 30"):
        answer(engine, prompt)
    engine._max_tokens = narrow


def test_the_context_ends_an_answer(reference: Reference, engine: VllmEngine) -> None:
    prompt = reference.case("full", "x" * 2040, seed=1).prompt(reference.card)
    tokens, _, reason, _ = answer(engine, prompt, Sampling(max_tokens=100, ignore_eos=True))
    assert (len(tokens), reason) == (8, "length")


def test_a_small_engine(reference: Reference, cases: dict[str, Case]) -> None:
    """Prompts in chunks that cut pictures, a queue of one, a wait that ends; arguments come from engine_args.json."""
    limits = Limits(max_kv_bytes=KV_BYTES, max_active=1, max_waiting=1, max_queue_seconds=2)
    given = {"max_num_batched_tokens": 16, "max_num_seqs": 1}
    engine = VllmEngine.load(reference.language, limits, LOOP, "fp32", 1, given)
    for case in cases.values():
        assert answer(engine, case.prompt(reference.card))[0] == case.expected

    async def full() -> Any:
        prompt = cases["text"].prompt(reference.card)
        first = engine.generate(prompt, LONG)
        await anext(first)
        second = asyncio.create_task(collect(engine, prompt))
        await until(lambda: engine.stats().num_waiting == 1)
        with pytest.raises(Unavailable, match="2 are allowed"):
            await collect(engine, prompt)
        with pytest.raises(DeadlineExceeded):
            await second
        third = asyncio.create_task(collect(engine, prompt))
        await until(lambda: engine.stats().num_waiting == 1)
        await first.aclose()
        return await third

    assert run(full())[0] == cases["text"].expected

    async def close() -> None:
        stream = engine.generate(cases["text"].prompt(reference.card), LONG)
        await anext(stream)
        await asyncio.to_thread(engine.close)
        async for _ in stream:
            pass

    with pytest.raises(Unavailable, match="shutting down"):
        run(close())
    assert not engine.is_dead()


def test_a_dead_engine_says_so(reference: Reference, cases: dict[str, Case]) -> None:
    torch.set_num_threads(2)
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1)
    assert torch.get_num_threads() == 1  # others would spin beside vLLM's processes

    async def die() -> None:
        stream = engine.generate(cases["text"].prompt(reference.card), LONG)
        await anext(stream)
        for process in engine._host.llm.engine_core.resources.engine_manager.processes:
            os.kill(process.pid, signal.SIGKILL)
        async for _ in stream:
            pass

    assert not engine.is_dead()
    with pytest.raises(Unavailable, match="died"):
        run(die())
    assert engine.is_dead()
    with pytest.raises(Unavailable, match="died"):
        answer(engine, cases["text"].prompt(reference.card))
    engine.close()
