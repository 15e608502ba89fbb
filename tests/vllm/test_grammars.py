"""Structured outputs: both engines answer the same to every constraint, and refuse the same."""

import asyncio

import pytest

from contract.errors import InvalidInput
from contract.sampling import Sampling
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.vllm.engine import VllmEngine
from tests.serving.grammars import CASES, NO_GRAMMAR, WRONG
from tests.serving.reference import Case, Reference
from tests.vllm.test_engine import answer, collect


@pytest.mark.parametrize("name", CASES)
def test_both_engines_answer_alike(reference: Reference, cases: dict[str, Case], engine: VllmEngine, name: str) -> None:
    prompt = cases["one image"].prompt(reference.card)
    sampling = Sampling(max_tokens=60, structured_outputs=CASES[name].constraint)
    _, text, reason, _ = answer(engine, prompt, sampling)
    light = TransformersEngine(load_language_model(reference.language))
    try:
        _, other, other_reason, _ = asyncio.run(collect(light, prompt, sampling))
    finally:
        light.close()
    assert (text, reason) == (other, other_reason)
    assert CASES[name].obeys(text)


@pytest.mark.parametrize("name", [*WRONG, *NO_GRAMMAR])
def test_the_same_is_refused_alone(reference: Reference, cases: dict[str, Case], engine: VllmEngine, name: str) -> None:
    case = cases["text"]
    with pytest.raises(InvalidInput) as caught:
        answer(engine, case.prompt(reference.card), Sampling(structured_outputs=(WRONG | NO_GRAMMAR)[name]))
    assert caught.value.check == ("constraint" if name in WRONG else "grammar")
    assert answer(engine, case.prompt(reference.card))[0] == case.expected


def test_an_ambiguous_grammar_ends_its_answer_early(
    reference: Reference, cases: dict[str, Case], engine: VllmEngine
) -> None:
    """Without limits its masks take ever longer, and all answers wait for them."""
    grammar = {"grammar": "start: s\ns: s s | A | B\nA: /[a-z ]/\nB: /[a-m0-9]+/"}
    sampling = Sampling(max_tokens=200, temperature=1.5, seed=1, ignore_eos=True, structured_outputs=grammar)
    ids, *_ = answer(engine, cases["text"].prompt(reference.card), sampling)
    assert len(set(ids[20:])) == 1  # the end, again and again
