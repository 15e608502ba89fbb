"""Which tokens a grammar allows next: the one part of structured outputs that an engine computes at every step."""

import numpy as np
import torch
from llguidance import LLTokenizer
from tokenizers import Tokenizer

from contract.errors import InvalidInput
from serving.grammars.trial import first_line, matcher


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
    return LLTokenizer(plain.to_str(), n_vocab=size, eos_token=sorted(end_ids) or None)


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

    @property
    def is_over(self) -> bool:
        """Whether the grammar allows nothing more."""
        return bool(self._matcher.is_stopped())

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """logits (V,) with minus infinity at each token that may not follow."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _wrong(first_line(self._matcher.get_error()))
        allowed = np.unpackbits(packed, count=logits.numel(), bitorder="little").astype(np.bool_)  # (V,)
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Take note that the engine chose a token, which `allow` allowed."""
        if not self._matcher.consume_token(token):
            raise _wrong(first_line(self._matcher.get_error()))


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(f"sampling_parameters.structured_outputs: the grammar ends here: {text}", check="grammar")
