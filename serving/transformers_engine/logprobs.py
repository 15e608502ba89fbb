"""Log-probabilities of a chosen token and of the likeliest ones, as the model gave them, before any penalty."""

import torch
from tokenizers import Tokenizer

from serving.engine import TokenLogprob


def token_logprob(logits: torch.Tensor, chosen: int, num_top: int, tokenizer: Tokenizer) -> TokenLogprob:
    """What logits (V,) say of the chosen token, with the num_top likeliest, likeliest first."""
    values = logits.float().log_softmax(-1)  # (V,)
    top = torch.topk(values, min(num_top, values.numel()))

    def entry(token: int, value: float, others: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(token, tokenizer.decode([token], skip_special_tokens=False), value, others)

    likeliest = tuple(entry(*pair) for pair in zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return entry(chosen, values[chosen].item(), likeliest)
