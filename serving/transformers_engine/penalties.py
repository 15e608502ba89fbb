"""Presence and frequency penalties, the two of vLLM's sampling names that transformers has no processor for."""

import torch


class OutputPenaltyLogitsProcessor:
    """A logits processor that lowers tokens which the answer has already, by presence once, by frequency for each time.

    score - frequency * count - presence * (count > 0), OpenAI's formula as vLLM has it (`apply_penalties` in
    vllm/model_executor/layers/utils.py), which also puts it behind the repetition penalty. The prompt does not count.
    """

    def __init__(self, presence: float, frequency: float, prompt_length: int) -> None:
        self._presence, self._frequency, self._prompt_length = presence, frequency, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Lower scores, float32 (1, V), of the answer's tokens in input_ids, int64 (1, prompt and answer)."""
        output = input_ids[:, self._prompt_length :]
        counts = torch.zeros_like(scores).scatter_add_(1, output, torch.ones_like(output, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)
