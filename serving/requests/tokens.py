"""Turns text into token ids, in pieces: the reader gives a text up as soon as it is too long, or its client has left.

The tokenizers library computes a whole text in one call, 1 s and 200 MB a million characters, and nothing can end a
call. So the reader cuts a long text where the tokenizer never joins characters, and the pieces' ids are the text's ids.
It calls `encode_batch_fast`, which leaves Python's lock to the other threads; `encode` does not.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from contract.errors import InvalidInput, Unavailable
from contract.expansion import around, with_around

PIECE_CHARACTERS = 1 << 14
_CUT = re.compile(r"[a-z](?= [a-zA-Z])", re.ASCII)  # between a letter and the blank before the next word


class TextReader:
    """Token ids of texts, at most max_tokens each. A lock lets one uncut text at a time take the memory it needs."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._start, self._end = around(tokenizer)
        self._is_cut, self._lock = can_cut(tokenizer), threading.Lock()

    def ids(self, text: str, is_wanted: Callable[[], bool] = lambda: True) -> NDArray[np.int64]:
        """The token ids of a text, int64 (S,).

        Args:
            is_wanted: asked before each piece; False ends the reading.

        Raises:
            InvalidInput: the text has more than max_tokens tokens.
            Unavailable: is_wanted gave False, because the client has left.
        """
        found: list[int] = []
        for piece in self._pieces(text):
            if not is_wanted():
                raise Unavailable("the client left while its text was read")
            if len(piece) > 2 * PIECE_CHARACTERS:  # a text without blanks
                with self._lock:
                    found += self._encode(piece)
            else:
                found += self._encode(piece)
            if len(found) > self._max_tokens:
                raise InvalidInput(
                    f"text_input has more than {self._max_tokens} tokens, {self._max_tokens} are allowed: send smaller "
                    "pictures or less text",
                    check="ids-length",
                )
        return np.array(with_around(found, self._start, self._end), np.int64)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while self._is_cut and len(text) - start > PIECE_CHARACTERS:
            cut = _CUT.search(text, start + PIECE_CHARACTERS)
            if cut is None:
                break
            yield text[start : cut.end()]
            start = cut.end()
        yield text[start:]


def can_cut(tokenizer: Tokenizer) -> bool:
    """Whether words never share a token, as in a byte-level tokenizer that splits its text before it looks for tokens.

    The rule that splits has to begin a new part at a blank before a letter, as GPT-2's and its followers' do; a
    normaliser may only compose characters (NFC), which does nothing to a blank between letters.
    """
    facts = json.loads(tokenizer.to_str())
    normaliser, splitter = facts.get("normalizer") or {"type": "NFC"}, facts.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", [splitter])
    is_byte_level = any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space") for step in steps)
    splits = any(
        (step.get("type") == "ByteLevel" and step.get("use_regex"))
        or (step.get("type") == "Split" and r"\p{L}+" in str(step.get("pattern")))
        for step in steps
    )
    added = facts.get("added_tokens", ())
    return (
        normaliser["type"] == "NFC"
        and is_byte_level
        and splits
        and facts["model"]["type"] == "BPE"
        and not any(token.get("lstrip") or token.get("rstrip") or " " in token["content"] for token in added)
        and tokenizer.encode("a b", add_special_tokens=False).tokens[-1:] == ["Ġb"]
    )
