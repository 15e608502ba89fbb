"""What a grammar may cost while an answer is written: all streams wait for the masks of each."""

import numpy as np
import pytest
import torch
from llguidance import grammar_from
from tokenizers import Tokenizer

from contract.errors import InvalidInput
from serving.transformers_engine import mask as masks
from serving.transformers_engine.mask import Mask, grammar_tokenizer
from tests.conftest import CHECKPOINT

SIZE = 520  # logits; the vocabulary has 503 tokens
TOKENIZER = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
END = TOKENIZER.token_to_id("<|im_end|>")
LETTERS = "A: /[a-z ]/\nB: /[a-m0-9]+/"
AMBIGUOUS = {  # each has ever more ways to read what was said
    "two": "start: s\ns: s s | A | B",
    "three": "start: s\ns: s s s | s s | A | B",
    "both sides": "start: s\ns: A s A | A s | s A | A | B",
    "absent": f"start: s\ns: {'A? ' * 16} s | A | B",
    "lists of lists": "start: (w+)+\nw: (A+ | B+)+",
}


def mask_of(kind: str, grammar: str) -> Mask:
    return Mask(grammar_from(kind, grammar), grammar_tokenizer(TOKENIZER, SIZE, frozenset([END])))


def say(mask: Mask, num_tokens: int) -> None:
    """Take a random allowed token at every step; short ones are the most ambiguous."""
    numbers = np.random.default_rng(0)
    for _ in range(num_tokens):
        allowed = np.flatnonzero(mask.allow(torch.zeros(SIZE)).numpy() == 0)
        mask.accept(int(numbers.choice(allowed[allowed != END])))


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_grammar_ends_its_answer_before_its_masks_are_large(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"the grammar ends here: .*Too many items") as caught:
        say(mask_of("lark", f"{AMBIGUOUS[name]}\n{LETTERS}"), 40)
    assert caught.value.check == "grammar"


def test_masks_that_take_too_long_end_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "CPU_S", 0.0)
    monkeypatch.setattr(masks, "CPU_S_A_TOKEN", 0.0)
    with pytest.raises(InvalidInput, match="its masks take more than 0 s and 0 ms a token: make it less ambiguous"):
        say(mask_of("regex", "[a-z ]*"), 2)


def test_a_plain_grammar_goes_on() -> None:
    say(mask_of("regex", "([a-z]+ )+[a-z ]*"), 400)
