"""Token ids of long texts: those that `encode` gives, while other threads go on."""

import threading
from pathlib import Path

from tokenizers import Tokenizer

from edge_runtime.prompts.tokens import token_ids
from tests.conftest import CHECKPOINT

TEXT = "A red circle is left of 2 squares. <|im_end|> " * 20_000


def test_the_ids_are_those_of_encode() -> None:
    tokenizer = Tokenizer.from_file(str(Path(CHECKPOINT) / "tokenizer.json"))
    for text in ("", "A circle.", TEXT[:200_000]):
        for adds in (True, False):
            assert token_ids(tokenizer, text, adds) == tokenizer.encode(text, add_special_tokens=adds).ids


def test_other_threads_go_on() -> None:
    tokenizer = Tokenizer.from_file(str(Path(CHECKPOINT) / "tokenizer.json"))
    turns, is_over = [0], threading.Event()

    def turn() -> None:
        while not is_over.wait(0.001):
            turns[0] += 1

    thread = threading.Thread(target=turn)
    thread.start()
    while not turns[0]:
        pass
    before = turns[0]
    token_ids(tokenizer, TEXT)
    between = turns[0] - before
    is_over.set()
    thread.join()
    assert between >= 5  # `encode` lets none pass
