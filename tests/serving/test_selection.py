"""Each sampling name does to the logits what transformers' generate does under the same name."""

from collections import Counter
from typing import Any

import pytest
import torch

from contract.sampling import Sampling
from serving.transformers_engine.selection import Selection
from tests.serving.reference import Reference

PROMPT = torch.arange(6)
NO_ENDS: frozenset[int] = frozenset()


def chosen(sampling: Sampling, logits: torch.Tensor, times: int = 300) -> list[int]:
    selection = Selection(sampling, PROMPT, times, NO_ENDS)
    return [selection.choose(logits) for _ in range(times)]


def test_greedy_takes_the_largest() -> None:
    assert set(chosen(Sampling(), torch.tensor([0.0, 3.0, 1.0]), 5)) == {1}


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": -1}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.75}, {0, 1}),
        ({"min_p": 0.4}, {0, 1}),
    ],
)
def test_filters(values: Any, allowed: Any) -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert set(chosen(Sampling(temperature=1, seed=1, **values), logits)) == allowed


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.6, 0.4]).log()
    cold, hot = (chosen(Sampling(temperature=t, seed=1), logits).count(0) / 300 for t in (0.2, 5.0))
    assert cold > 0.8
    assert hot < 0.62


def test_no_seed_differs() -> None:
    logits = torch.zeros(1000)
    assert chosen(Sampling(temperature=1), logits, 20) != chosen(Sampling(temperature=1), logits, 20)


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_and_min_tokens_as_generate_has_them(reference: Reference, penalty: float) -> None:
    ids = torch.tensor([reference.tokenizer.encode("again and again").ids])
    kwargs = {"max_new_tokens": 16, "do_sample": False, "repetition_penalty": penalty, "min_new_tokens": 8}
    reference.model.model.rope_deltas = None
    expected = reference.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **kwargs)[0].tolist()
    ends = frozenset(reference.model.generation_config.eos_token_id)
    selection = Selection(Sampling(max_tokens=16, min_tokens=8, repetition_penalty=penalty), ids[0], 16, ends)
    got = ids[0].tolist()
    for _ in range(len(expected) - len(got)):
        with torch.no_grad():
            reference.model.model.rope_deltas = None
            got.append(selection.choose(reference.model(input_ids=torch.tensor([got])).logits[0, -1]))
    assert got == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [7, 7, 7, 7]),
        ({"presence_penalty": 0.3}, [7, 8, 7, 7]),  # 2.0; 1.9 over 1.7; 1.7 over 1.6; and it stays so
        ({"frequency_penalty": 0.3}, [7, 8, 7, 8]),  # 2.0; 1.9 over 1.7; 1.7 over 1.6; 1.6 over 1.4
        (
            {"presence_penalty": 0.3, "frequency_penalty": 0.3},
            [7, 8, 9, 7],
        ),  # 1.5 over 1.4 and 1.3; 1.4 over 1.3 and 0.9
        ({"presence_penalty": -0.5}, [7, 7, 7, 7]),
    ],
)
def test_presence_and_frequency_penalties(values: Any, expected: Any) -> None:
    logits = torch.tensor([0.0] * 7 + [2.0, 1.9, 1.5])
    assert chosen(Sampling(**values), logits, 4) == expected


def test_penalties_come_after_the_repetition_penalty_and_spare_the_prompt() -> None:
    """Against vLLM's formula written out, with a prompt that holds the same tokens."""
    sampling = Sampling(repetition_penalty=1.4, presence_penalty=0.7, frequency_penalty=-0.3)
    prompt, generator = [3, 3, 5], torch.Generator().manual_seed(4)
    selection, output = Selection(sampling, torch.tensor(prompt), 30, NO_ENDS), []
    for _ in range(30):
        logits = torch.randn(8, generator=generator)
        scores = logits.tolist()
        for token in {*prompt, *output}:
            scores[token] = scores[token] / 1.4 if scores[token] > 0 else scores[token] * 1.4
        for token, count in Counter(output).items():
            scores[token] -= -0.3 * count + 0.7
        expected = max(range(8), key=scores.__getitem__)
        output.append(selection.choose(logits))
        assert output[-1] == expected
    assert len(set(output)) > 2
