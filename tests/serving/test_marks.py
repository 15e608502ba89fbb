"""Grammars with Qwen's marks in them, on the bundled model's vocabulary, where each mark is one token and text."""

import numpy as np
import pytest
import torch
from llguidance import grammar_from
from tokenizers import Tokenizer

from serving.transformers_engine.mask import Mask, grammar_tokenizer
from tests.conftest import CHECKPOINT

SIZE = 520  # logits; the vocabulary has 503 tokens
TOKENIZER = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
END = TOKENIZER.token_to_id("<|im_end|>")
THOUGHT = 'start: thought "ab"\nthought[suffix="</think>"]: /(?s:.*)/'
CALL = '"</think>" "<tool_call>" x "</tool_call>"\nx: %json {"const": 1}'


def allowed(mask: Mask) -> set[int]:
    return set(np.flatnonzero(mask.allow(torch.zeros(SIZE)).numpy() == 0).tolist())


@pytest.mark.parametrize(
    ("grammar", "text"),
    [(THOUGHT, "a b</think>ab"), (THOUGHT, "</think>ab"), (f"start: {CALL}", "</think><tool_call>1</tool_call>")],
    ids=["a thought", "an empty thought", "a call"],
)
def test_a_mark_is_said_as_the_model_learned_it(grammar: str, text: str) -> None:
    mask = Mask(grammar_from("lark", grammar), grammar_tokenizer(TOKENIZER, SIZE, frozenset([END])))
    said = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.token_to_id("</think>") in said  # one token
    for token in said:
        assert token in allowed(mask), TOKENIZER.id_to_token(token)
        mask.accept(token)
    assert allowed(mask) == {END}


def test_special_tokens_and_those_that_do_not_exist_are_no_text() -> None:
    mask = Mask(grammar_from("regex", "(?s:.*)"), grammar_tokenizer(TOKENIZER, SIZE, frozenset([END])))
    found = allowed(mask)
    special = {token for token, about in TOKENIZER.get_added_tokens_decoder().items() if about.special}
    assert len(special) > 10
    assert found & special == {END}
    assert max(found) == 502
