"""Structured outputs: both engines answer the same to every constraint, and refuse the same."""

import asyncio

import numpy as np
import pytest
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.backend_types import StructuredOutputOptions

from contract.errors import InvalidInput
from contract.sampling import Sampling
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.transformers_engine.mask import grammar_tokenizer
from serving.vllm.engine import VllmEngine
from serving.vllm.grammars import as_in_transformers_engine
from tests.serving.grammars import CASES, NO_GRAMMAR, WRONG
from tests.serving.reference import Case, Reference
from tests.serving.test_mask_limits import AMBIGUOUS, END, LETTERS, SIZE, TOKENIZER
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


def test_masks_have_the_limits_of_the_other_engine() -> None:
    """vLLM compiles without any: an ambiguous grammar's masks would take ever longer, and all answers wait for them."""
    as_in_transformers_engine()
    backend = object.__new__(GuidanceBackend)  # without an engine
    backend.ll_tokenizer, backend.vocab_size = grammar_tokenizer(TOKENIZER, SIZE, frozenset([END])), SIZE
    backend.disable_any_whitespace, backend.disable_additional_properties = True, False
    made = backend.compile_grammar(StructuredOutputOptions.GRAMMAR, f"{AMBIGUOUS['three']}\n{LETTERS}")
    bits, numbers = backend.allocate_token_bitmask(1), np.random.default_rng(0)
    for _ in range(40):
        made.fill_bitmask(bits, 0)
        if made.ll_matcher.is_error():
            break
        allowed = np.flatnonzero(np.unpackbits(bits.numpy().view(np.uint8)[0], bitorder="little"))
        assert made.accept_tokens("", [int(numbers.choice(allowed[allowed != END]))])
    assert "(limit 5000;" in made.ll_matcher.get_error()
