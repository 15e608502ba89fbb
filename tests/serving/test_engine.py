"""The engine against transformers' own generate on the pixels; every fault of a split must change the tokens."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import BundleError, InvalidInput, ServerError, Unavailable
from contract.families.mrope import mrope_positions
from contract.limits import Limits
from contract.prompt import Prompt
from contract.sampling import Sampling
from serving.transformers_engine.checkpoint import LanguageModel, load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference, forced_logprobs, remove_tensor, write_config
from tests.waiting import until

GREEDY = Sampling(max_tokens=MAX_NEW_TOKENS)
VISUAL = ("one image", "several sizes", "video", "mixed", "multi-turn", "two videos")


@pytest.fixture(scope="module")
def model(reference: Reference) -> Any:
    return load_language_model(reference.language, "fp32")


@pytest.fixture(scope="module")
def engine(model: LanguageModel) -> Iterator[Any]:
    engine = TransformersEngine(model)
    yield engine
    engine.close()


async def collect(engine: TransformersEngine, prompt: Prompt, sampling: Sampling = GREEDY) -> Any:
    tokens, text, reason = [], "", None
    async for delta in engine.generate(prompt, sampling):
        tokens += delta.token_ids
        text += delta.text
        reason = delta.finish_reason
    return tuple(tokens), text, reason


def answer(engine: TransformersEngine, prompt: Prompt, sampling: Sampling = GREEDY) -> Any:
    return asyncio.run(collect(engine, prompt, sampling))


@pytest.mark.parametrize("name", ["text", *VISUAL, "long text"])
def test_tokens_equal_transformers_on_the_pixels(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, name: Any
) -> None:
    tokens, _, reason = answer(engine, cases[name].prompt(reference.card))
    assert tokens == cases[name].expected
    assert reason == "length"


def test_concurrent_answers_equal_those_alone_and_interleave(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    order = []

    async def one(case: Case) -> Any:
        tokens = []
        async for delta in engine.generate(case.prompt(reference.card), GREEDY):
            tokens += delta.token_ids
            order.append(case.name)
        return tuple(tokens)

    async def all_of_them() -> Any:
        return await asyncio.gather(*(one(case) for case in cases.values()))

    assert asyncio.run(all_of_them()) == [case.expected for case in cases.values()]
    assert len(cases) == 8
    switches = sum(a != b for a, b in itertools.pairwise(order))
    assert switches > len(cases) * MAX_NEW_TOKENS // 2


def test_prompt_in_chunks(reference: Reference, cases: dict[str, Case], model: LanguageModel) -> None:
    engine = TransformersEngine(model, prefill_chunk_tokens=7)  # cuts inside pictures
    for case in cases.values():
        assert answer(engine, case.prompt(reference.card))[0] == case.expected
    engine.close()


@pytest.mark.parametrize("kind", [{"tied": True}, {"is_moe": True}], ids=["tied embeddings", "mixture of experts"])
def test_other_checkpoints(tmp_path: Path, kind: Any) -> None:
    reference = Reference(tmp_path, **kind)
    case = reference.case("other", "Look ", (1, 8, 8), " now", (2, 4, 4), seed=3)
    engine = TransformersEngine(load_language_model(reference.language, "fp32"))
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    engine.close()


@pytest.mark.parametrize("name", VISUAL)
def test_deepstack_matters(reference: Reference, cases: dict[str, Case], engine: TransformersEngine, name: Any) -> None:
    case = cases[name]
    swapped = case.prompt(reference.card, deepstack_embeddings=case.deepstack[::-1].copy())
    absent = case.prompt(reference.card, deepstack_embeddings=np.zeros_like(case.deepstack))
    assert answer(engine, swapped)[0] != case.expected
    assert answer(engine, absent)[0] != case.expected


def _flat(input_ids: Any, *_: Any) -> Any:
    return np.broadcast_to(np.arange(len(input_ids)), (3, len(input_ids))), 0


def _stale(*args: Any) -> Any:
    positions, delta = mrope_positions(*args)
    return positions, delta + 5


@pytest.mark.parametrize("name", VISUAL)
@pytest.mark.parametrize("mutation", [_flat, _stale])
def test_positions_matter(
    reference: Reference,
    cases: dict[str, Case],
    engine: TransformersEngine,
    name: Any,
    mutation: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("contract.families.qwen3_vl.mrope_positions", mutation)
    assert answer(engine, cases[name].prompt(reference.card))[0] != cases[name].expected


def test_end_token_ends(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, model: LanguageModel
) -> None:
    case = cases["text"]
    ending = replace(model, end_ids=frozenset([case.expected[3]]))
    other = TransformersEngine(ending)
    tokens, text, reason = answer(other, case.prompt(reference.card))
    assert (tokens, reason) == (case.expected[:4], "stop")
    assert text == reference.tokenizer.decode(case.expected[:3])
    ignoring = Sampling(max_tokens=MAX_NEW_TOKENS, ignore_eos=True)
    assert answer(other, case.prompt(reference.card), ignoring)[0] == case.expected
    later = answer(other, case.prompt(reference.card), Sampling(max_tokens=MAX_NEW_TOKENS, min_tokens=6))[0]
    assert case.expected[3] not in later[:5]
    other.close()


def test_stop_string_and_stop_token(reference: Reference, cases: dict[str, Case], engine: TransformersEngine) -> None:
    case = cases["text"]
    whole = reference.tokenizer.decode(case.expected)
    stop = whole[4:6]
    tokens, text, reason = answer(engine, case.prompt(reference.card), Sampling(max_tokens=20, stop=(stop,)))
    assert (text, reason) == (whole[: whole.index(stop)], "stop")
    assert tokens == case.expected[: len(tokens)]
    by_id = Sampling(max_tokens=20, stop_token_ids=(case.expected[5],))
    assert answer(engine, case.prompt(reference.card), by_id)[0] == case.expected[:6]


def test_a_seed_repeats_whatever_runs_beside(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    prompt = cases["one image"].prompt(reference.card)
    sampling = Sampling(max_tokens=12, temperature=1.0, top_k=50, top_p=0.95, seed=11)

    async def beside() -> Any:
        others = [collect(engine, cases[name].prompt(reference.card), GREEDY) for name in VISUAL]
        return (await asyncio.gather(collect(engine, prompt, sampling), *others))[0]

    first, other = answer(engine, prompt, sampling)[0], answer(engine, prompt, replace(sampling, seed=12))[0]
    assert asyncio.run(beside())[0] == first
    assert other != first


def test_leaving_frees_the_slot(reference: Reference, cases: dict[str, Case], model: LanguageModel) -> None:
    engine = TransformersEngine(model, Limits(max_active=1, max_waiting=0))
    prompt = cases["text"].prompt(reference.card)
    long = Sampling(max_tokens=1000, ignore_eos=True)

    async def leave() -> Any:
        stream = engine.generate(prompt, long)
        await anext(stream)
        with pytest.raises(Unavailable, match="1 are allowed"):
            await collect(engine, prompt)
        await stream.aclose()
        await until(lambda: not engine.stats().num_active)
        task = asyncio.create_task(collect(engine, prompt, long))
        await until(lambda: engine.stats().num_active)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not engine.stats().num_active)
        return await collect(engine, prompt)

    assert asyncio.run(asyncio.wait_for(leave(), 20))[0] == cases["text"].expected
    assert engine.stats().num_cancelled == 2
    engine.close()


def test_one_bad_request_fails_alone(reference: Reference, cases: dict[str, Case], engine: TransformersEngine) -> None:
    good, bad = cases["text"], cases["one image"]
    huge = bad.prompt(reference.card, deepstack_embeddings=np.full_like(bad.deepstack, 3e38))  # their sum is inf

    async def both() -> Any:
        return await asyncio.gather(
            collect(engine, huge), collect(engine, good.prompt(reference.card)), return_exceptions=True
        )

    failed, served = asyncio.run(both())
    assert isinstance(failed, InvalidInput)
    assert failed.check == "number-format"
    assert served[0] == good.expected


def test_damaged_weights_are_the_servers_fault(reference: Reference, cases: dict[str, Case]) -> None:
    model = load_language_model(reference.language, "fp32")
    with torch.no_grad():
        model.decoder.norm.weight.fill_(torch.nan)
    engine = TransformersEngine(model)
    with pytest.raises(ServerError, match="weights are damaged"):
        answer(engine, cases["text"].prompt(reference.card))
    engine.close()


def test_values_too_large_for_float16(reference: Reference, cases: dict[str, Case]) -> None:
    engine = TransformersEngine(load_language_model(reference.language, "fp16"))
    case = cases["one image"]
    with pytest.raises(InvalidInput, match="too large"):
        answer(engine, case.prompt(reference.card, vision_embeddings=np.full_like(case.main, 1e5)))
    engine.close()


def test_a_dead_engine_refuses(
    reference: Reference, cases: dict[str, Case], model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(model)
    monkeypatch.setattr(engine, "_turn_over", lambda: 1 / 0)
    prompt = cases["text"].prompt(reference.card)
    assert not engine.is_dead()
    for _ in range(2):
        with pytest.raises(ServerError, match="died"):
            answer(engine, prompt)
    assert engine.is_dead()
    assert engine.stats().num_active == 0


def test_close_ends_running_requests(reference: Reference, cases: dict[str, Case], model: LanguageModel) -> None:
    engine = TransformersEngine(model)

    async def run() -> None:
        stream = engine.generate(cases["text"].prompt(reference.card), Sampling(max_tokens=1000, ignore_eos=True))
        await anext(stream)
        await asyncio.to_thread(engine.close)
        async for _ in stream:
            pass

    with pytest.raises(Unavailable):
        asyncio.run(run())


def test_log_probabilities_are_those_of_the_raw_logits(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    """Penalties and temperature move the choice, not the reported log-probabilities."""
    case = cases["mixed"]
    prompt = case.prompt(reference.card)
    sampling = Sampling(max_tokens=12, logprobs=3, temperature=1.5, repetition_penalty=1.5, presence_penalty=1, seed=5)

    async def told() -> Any:
        return [t async for delta in engine.generate(prompt, sampling) for t in delta.logprobs]

    entries = asyncio.run(told())
    answer = tuple(entry.id for entry in entries)
    assert len(answer) == 12
    assert answer != case.expected[:12]
    expected = forced_logprobs(reference.model, prompt, reference.card, answer)  # (12, V)
    for entry, row in zip(entries, expected, strict=True):
        assert entry.logprob == pytest.approx(row[entry.id].item(), abs=1e-4)
        assert entry.token == reference.tokenizer.decode([entry.id], skip_special_tokens=False)
        values, ids = row.topk(3)
        assert [other.id for other in entry.top] == ids.tolist()
        assert [other.logprob for other in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert all(not other.top for other in entry.top)


def test_log_probabilities_on_request_only(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    async def deltas(sampling: Sampling) -> Any:
        return [d async for d in engine.generate(cases["text"].prompt(reference.card), sampling)]

    assert all(delta.logprobs == () for delta in asyncio.run(deltas(GREEDY)))
    for delta in asyncio.run(deltas(replace(GREEDY, logprobs=0))):
        assert [(entry.id, entry.top) for entry in delta.logprobs] == [(delta.token_ids[0], ())]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(max_tokens=0), "at least 1 is expected"),
    ],
)
def test_what_this_engine_does_not_have(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, sampling: Sampling, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        answer(engine, cases["text"].prompt(reference.card), sampling)


def test_context_ends_the_answer(reference: Reference, cases: dict[str, Case], engine: TransformersEngine) -> None:
    prompt = reference.case("full", "x" * 2040, seed=1).prompt(reference.card)
    tokens, _, reason = answer(engine, prompt, Sampling(max_tokens=100, ignore_eos=True))
    assert (len(tokens), reason) == (8, "length")


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("auto", torch.float32)])
def test_number_formats(reference: Reference, dtype: str, expected: Any) -> None:
    model = load_language_model(reference.language, dtype)
    if model.device.type == "cpu":
        assert model.dtype == expected
    names = [name for name, _ in model.decoder.named_parameters()]
    assert names
    assert not any("visual" in name for name in names)


def test_bad_checkpoints(reference: Reference, tmp_path: Path) -> None:
    remove_tensor(reference.language, tmp_path / "hole", "layers.2.mlp.up_proj.weight")
    with pytest.raises(BundleError, match=r"layers\.2\.mlp\.up_proj"):
        load_language_model(tmp_path / "hole")
    remove_tensor(reference.language, tmp_path / "other", "norm.weight")
    write_config(tmp_path / "other", architectures=["Other"])
    with pytest.raises(BundleError, match="architecture is Other"):
        load_language_model(tmp_path / "other")
    with pytest.raises(BundleError, match="no language checkpoint"):
        load_language_model(reference.full)
