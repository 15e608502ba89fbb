"""Structured outputs on the transformers engine: every answer obeys, and a bad grammar hurts nobody else."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from llguidance import LLParserLimits

from contract.errors import InvalidInput, Unavailable
from contract.sampling import Sampling
from serving.grammars import trial, trials
from serving.grammars.constraint import Constraint
from serving.grammars.trials import TrialLimits, Trials
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.serving.grammars import CASES, NO_GRAMMAR, OPEN, POINT, WRONG
from tests.serving.reference import MAX_NEW_TOKENS, Case, Reference
from tests.serving.test_engine import answer, collect

GREEDY = Sampling(max_tokens=MAX_NEW_TOKENS)
LARGE = {
    "json": {
        "properties": {f"p{i}": {"type": "integer"} for i in range(2000)},
        "required": [f"p{i}" for i in range(2000)],
    }
}


@pytest.fixture(scope="module")
def engine(reference: Reference) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(load_language_model(reference.language))
    yield engine
    engine.close()


@pytest.mark.parametrize("name", CASES)
def test_an_answer_obeys(reference: Reference, cases: dict[str, Case], engine: TransformersEngine, name: str) -> None:
    case, prompt = CASES[name], cases["one image"].prompt(reference.card)
    sampling = Sampling(max_tokens=60, structured_outputs=case.constraint)
    hot = replace(sampling, temperature=1.5, seed=3, repetition_penalty=1.2, presence_penalty=1, top_p=0.9)
    for chosen in (sampling, hot):
        _, text, reason = answer(engine, prompt, chosen)
        assert reason == "stop"
        assert case.obeys(text), text


def test_answers_differ_with_the_picture(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    sampling = Sampling(max_tokens=60, structured_outputs={"regex": "[a-z]{12}"})
    texts = {answer(engine, cases[name].prompt(reference.card), sampling)[1] for name in ("text", "one image", "video")}
    assert len(texts) == 3


def test_a_length_cuts_an_object_and_nothing_else_does(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    prompt = cases["text"].prompt(reference.card)
    long = {"json": {"type": "object", "properties": {"a": {"type": "string", "minLength": 20}}, "required": ["a"]}}
    _, text, reason = answer(engine, prompt, Sampling(max_tokens=9, structured_outputs=long))
    assert (text[:6], reason) == ('{"a":"', "length")
    _, text, reason = answer(engine, prompt, Sampling(max_tokens=200, structured_outputs=OPEN))
    assert text.startswith("{")
    assert reason == "length" or isinstance(json.loads(text), dict)


@pytest.mark.parametrize("values", [{"min_tokens": 12}, {"ignore_eos": True}, {"stop": ("e",)}], ids=str)
def test_what_ends_an_answer_beside_its_grammar(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, values: dict[str, Any]
) -> None:
    sampling = Sampling(max_tokens=40, structured_outputs={"choice": ["yes", "never"]}, **values)
    tokens, text, reason = answer(engine, cases["text"].prompt(reference.card), sampling)
    assert reason == "stop"
    assert text in (("y", "n") if "stop" in values else ("yes", "never"))
    assert len(tokens) <= 7


def test_penalties_cannot_leave_the_grammar(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    sampling = Sampling(
        max_tokens=40, structured_outputs={"regex": "a{20}"}, repetition_penalty=50, frequency_penalty=2
    )
    assert answer(engine, cases["text"].prompt(reference.card), sampling)[1] == "a" * 20


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_constraint_is_refused(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, name: str
) -> None:
    with pytest.raises(InvalidInput, match=r"sampling_parameters\.structured_outputs ") as caught:
        answer(engine, cases["text"].prompt(reference.card), Sampling(structured_outputs=WRONG[name]))
    assert caught.value.check == "constraint"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", NO_GRAMMAR)
def test_what_is_no_grammar_is_refused_alone(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, name: str
) -> None:
    case = cases["text"]
    prompt = case.prompt(reference.card)

    async def both() -> list[Any]:
        bad = collect(engine, prompt, Sampling(structured_outputs=NO_GRAMMAR[name]))
        return await asyncio.gather(bad, collect(engine, prompt, GREEDY), return_exceptions=True)

    error, other = asyncio.run(both())
    assert isinstance(error, InvalidInput)
    assert error.check == "grammar"
    assert "cannot be compiled" in str(error)
    assert "NoExtensionBias" not in str(error)  # the library's word says nothing to a caller
    assert other[0] == case.expected


def test_neighbours_answer_as_if_alone(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine
) -> None:
    async def together() -> list[Any]:
        plain = [collect(engine, case.prompt(reference.card), GREEDY) for case in cases.values()]
        bound = [collect(engine, cases["text"].prompt(reference.card), Sampling(structured_outputs={"json": POINT}))]
        return await asyncio.gather(*plain, *bound)

    *plain, bound = asyncio.run(together())
    assert [found[0] for found in plain] == [case.expected for case in cases.values()]
    assert CASES["object"].obeys(bound[1])


@pytest.mark.parametrize("limits", [TrialLimits(max_bytes=1 << 20), TrialLimits(max_cpu_s=0.001)], ids=["bytes", "cpu"])
def test_a_grammar_that_takes_too_much_is_refused_and_remembered(limits: TrialLimits) -> None:
    tried = Trials(limits)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="takes more than") as caught:
            asyncio.run(tried.grammar(Constraint.read(LARGE)))
        assert caught.value.check == "grammar"
    tried.close()


def test_a_large_grammar_within_the_limits_is_taken() -> None:
    tried = Trials()
    assert "p1999" in asyncio.run(tried.grammar(Constraint.read(LARGE)))
    begun = time.perf_counter()
    for _ in range(20):
        asyncio.run(tried.grammar(Constraint.read(LARGE)))  # no process
    assert time.perf_counter() - begun < 5
    tried.close()


def test_few_wait_for_a_trial() -> None:
    tried = Trials(TrialLimits(num_workers=1, max_waiting=1))

    async def three() -> list[Any]:
        return await asyncio.gather(
            *(tried.grammar(Constraint.read({"regex": f"a{{{i}}}"})) for i in (1, 2, 3)), return_exceptions=True
        )

    first, second, third = asyncio.run(three())
    assert isinstance(third, Unavailable)
    assert third.check == "grammars"
    assert json.loads(first) != json.loads(second)
    tried.close()


def test_a_grammar_that_becomes_too_large_ends_its_own_answer(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["text"]
    prompt = case.prompt(reference.card)
    sampling = Sampling(max_tokens=40, min_tokens=30, structured_outputs={"grammar": 'start: e\ne: "a" | e e'})

    async def both() -> list[Any]:
        return await asyncio.gather(
            collect(engine, prompt, sampling), collect(engine, prompt, GREEDY), return_exceptions=True
        )

    monkeypatch.setattr(trial, "LIMITS", LLParserLimits(step_max_items=40, verbose_errors=False))
    error, other = asyncio.run(both())
    assert isinstance(error, InvalidInput)
    assert "the grammar ends here" in str(error)
    assert other[0] == case.expected


def test_without_the_package_the_server_says_so(
    reference: Reference, cases: dict[str, Case], engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_PACKAGE", "no_such_package")
    with pytest.raises(InvalidInput, match="needs the package no_such_package"):
        answer(engine, cases["text"].prompt(reference.card), Sampling(structured_outputs={"regex": "a"}))
