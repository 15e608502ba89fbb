"""Which tokens a grammar allows next: the one part of structured outputs that an engine computes at every step."""

import time

import numpy as np
import torch
from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

from contract.errors import InvalidInput
from serving.grammars.trial import first_line, matcher

# Processor seconds that the masks of one answer may take: all streams wait for them. A usual schema takes 0.5 ms a token
# with 150,000 words.
CPU_S, CPU_S_A_TOKEN = 1.0, 0.01


def grammar_tokenizer(tokenizer: Tokenizer, num_ids: int, end_ids: frozenset[int]) -> LLTokenizer:
    """llguidance's view of a vocabulary. 150,000 tokens take seconds and 100 MB, and no other thread runs meanwhile.

    Args:
        num_ids: how many logits the model gives.
        end_ids: tokens that end an answer; a grammar that is over allows these alone.
    """
    size = max(num_ids, tokenizer.get_vocab_size(with_added_tokens=True))
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    ends = sorted(end_ids) or None
    made = LLTokenizer(plain.to_str(), n_vocab=size, eos_token=ends)
    added = plain.get_added_tokens_decoder()
    if all(token.special for token in added.values()):
        return made
    return LLTokenizer(TokenizerWrapper(_Spelt(plain, made, size)), n_vocab=size, eos_token=ends)


class _Spelt:
    """A vocabulary as llguidance's TokenizerWrapper reads it.

    llguidance 1.7 takes each token in angle brackets for a special one, which no text of a grammar spells. Qwen's
    <think>, </think>, <tool_call> and </tool_call> are text: as special ones they end an answer with an error, or
    cannot be said. Here only tokens that the tokenizer calls special are.
    """

    def __init__(self, tokenizer: Tokenizer, made: LLTokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = made.eos_token, None
        self.tokens = [made.decode_bytes([token]) for token in range(size)]
        added = tokenizer.get_added_tokens_decoder()
        num_known = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        special = (token for token, about in added.items() if about.special)
        self.special_token_ids = [*special, *range(num_known, size)]

    def __call__(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found


class Mask:
    """The grammar of one answer. `allow` and `accept` take turns.

    Raises:
        InvalidInput: the grammar needs more than its limits.
    """

    def __init__(self, grammar: str, tokenizer: LLTokenizer) -> None:
        try:
            self._matcher = matcher(grammar, tokenizer)
        except ValueError as error:
            raise _wrong(str(error)) from error
        self._over_s = -CPU_S  # above 0, the masks took more than they may

    @property
    def is_over(self) -> bool:
        """Whether the grammar allows nothing more."""
        return bool(self._matcher.is_stopped())

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (V,) with minus infinity at each token that may not follow."""
        begun = time.thread_time()
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._over_s += time.thread_time() - begun - CPU_S_A_TOKEN
        if self._matcher.is_error():
            raise _wrong(first_line(self._matcher.get_error()))
        if self._over_s > 0:
            raise _wrong(
                f"its masks take more than {CPU_S:g} s and {1e3 * CPU_S_A_TOKEN:g} ms a token: make it less ambiguous"
            )
        allowed = np.unpackbits(packed, count=logits.numel(), bitorder="little").astype(np.bool_)  # (V,)
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Take note that the engine chose a token, which `allow` allowed."""
        if not self._matcher.consume_token(token):
            raise _wrong(first_line(self._matcher.get_error()))


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(f"sampling_parameters.structured_outputs: the grammar ends here: {text}", check="grammar")
