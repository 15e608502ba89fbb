"""Attention over a row in which the tokens of many sequences stand one after the other.

Every other operation of the model works on tokens alone, so packing them batches the model without padding; attention
is where sequences must not see each other. transformers lets a model name its attention function: this one appends each
piece to its own sequence's cache and leaves the computing to transformers' sdpa, piece by piece.
"""

from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PACKED = "edge_vlm_packed"


class PackedTokens(Protocol):
    """Consecutive tokens of one sequence. mask is bool (1, 1, n, past + n), None where sdpa needs none."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def cache(self) -> Cache: ...
    @property
    def mask(self) -> torch.Tensor | None: ...


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pieces: list[PackedTokens],
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend: query (1, heads, T, head dim), key and value (1, kv heads, T, head dim), to (1, T, heads, head dim)."""
    lengths = [piece.num_tokens for piece in pieces]
    parts = zip(pieces, *(torch.split(states, lengths, dim=2) for states in (query, key, value)), strict=True)
    outputs = []
    for piece, q, k, v in parts:
        keys, values = piece.cache.update(k, v, module.layer_idx)
        outputs.append(sdpa_attention_forward(module, q, keys, values, piece.mask, **kwargs)[0])
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PACKED, packed_attention)
