"""The choice of the next token, through transformers' own logits processors, so that a name means what it means there.

One object a sequence: the random state belongs to the sequence, and a seed gives the same answer whatever else runs.
"""

from typing import TYPE_CHECKING

import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from contract.sampling import Sampling
from serving.transformers_engine.penalties import OutputPenaltyLogitsProcessor

if TYPE_CHECKING:
    from serving.transformers_engine.mask import Mask
    from serving.transformers_engine.thinking import Thinking

MIN_TEMPERATURE = 0.01  # vLLM's: it replaces what lies between 0 and it, with which scores would leave float32


class Selection:
    """Chooses the tokens of one sequence.

    Args:
        prompt_ids: int64 (S,) on the model's device.
        max_new_tokens: the largest number of tokens to choose.
        end_ids: tokens that end the sequence; min_tokens keeps them from being chosen.
        mask: the grammar of the answer. Where it allows nothing but an end, it outranks min_tokens.
        thinking: the budget of the answer's thoughts. A grammar that does not allow their end outranks it.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: torch.Tensor,
        max_new_tokens: int,
        end_ids: frozenset[int],
        mask: "Mask | None" = None,
        thinking: "Thinking | None" = None,
    ) -> None:
        self._mask, self._thinking = mask, thinking
        device, self._length = prompt_ids.device, prompt_ids.numel()
        self._processors = LogitsProcessorList(_processors(sampling, self._length, end_ids, device))
        self._generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)
        self._history = torch.empty((1, self._length + max_new_tokens), dtype=torch.long, device=device)  # (1, S + new)
        self._history[0, : self._length] = prompt_ids

    def choose(self, logits: torch.Tensor) -> int:
        """The next token from logits (V,).

        Raises:
            InvalidInput: the grammar needs more than its limits.
        """
        scores = logits.float()[None]  # (1, V)
        if self._mask is not None:
            scores = self._mask.allow(scores[0])[None]
        allowed = scores
        if self._processors:
            scores = self._processors(self._history[:, : self._length], scores)
        if self._mask is not None and not torch.isfinite(scores).any():
            scores = allowed
        forced = None if self._thinking is None else self._thinking.forced
        if forced is not None and torch.isfinite(allowed[0, forced]):
            token = torch.tensor([forced], device=scores.device)  # (1,)
        elif self._generator is None:
            token = scores.argmax(-1)  # (1,)
        else:
            token = torch.multinomial(scores.softmax(-1), 1, generator=self._generator)[0]  # (1,)
        self._history[0, self._length] = token[0]
        self._length += 1
        if self._mask is not None:
            self._mask.accept(int(token))
        if self._thinking is not None:
            self._thinking.accept(int(token))
        return int(token)

    @property
    def is_over(self) -> bool:
        """Whether the answer has a grammar, and that allows nothing more."""
        return self._mask is not None and self._mask.is_over


def _processors(s: Sampling, prompt_length: int, end_ids: frozenset[int], device: torch.device) -> list[object]:
    """In transformers' order: penalties first, then temperature, then the filters."""
    chosen: list[object] = []
    if s.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(float(s.repetition_penalty)))
    if s.presence_penalty or s.frequency_penalty:
        chosen.append(OutputPenaltyLogitsProcessor(s.presence_penalty, s.frequency_penalty, prompt_length))
    if s.min_tokens and end_ids:
        chosen.append(
            MinNewTokensLengthLogitsProcessor(prompt_length, s.min_tokens, sorted(end_ids), device=str(device))
        )
    if s.temperature > 0:
        if s.temperature != 1:
            chosen.append(TemperatureLogitsWarper(max(float(s.temperature), MIN_TEMPERATURE)))
        if s.top_k > 0:
            chosen.append(TopKLogitsWarper(s.top_k))
        if s.top_p < 1:
            chosen.append(TopPLogitsWarper(float(s.top_p)))
        if s.min_p > 0:
            chosen.append(MinPLogitsWarper(float(s.min_p)))
    return chosen
