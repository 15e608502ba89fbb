"""Gated-delta layers over a row in which the tokens of many sequences stand one after the other.

Projections, norms and gates work on tokens alone, so the row shares them. The convolution and the delta rule carry a
state from token to token: sequences that add one token each run as one batch over their stacked states, and each chunk
of a prompt continues its own. The formulas are transformers' own functions; only the states are kept here.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch

from serving.transformers_engine.state import StateLayer


class CachedPiece(Protocol):
    """Consecutive tokens of one sequence; the cache has a StateLayer at the place of each gated-delta layer."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def cache(self) -> Any: ...


def pack(decoder: Any) -> None:
    """Give each gated-delta layer of a text model the forward of this module."""
    for layer in decoder.layers:
        if (mixer := getattr(layer, "linear_attn", None)) is not None:
            mixer.forward = partial(packed_delta, mixer)


def packed_delta(
    mixer: Any, hidden_states: torch.Tensor, *, pieces: Sequence[CachedPiece], **kwargs: Any
) -> torch.Tensor:
    """What the layer adds to each token: (1, T, H) to (1, T, H). The states of the pieces grow.

    Args:
        mixer: transformers' gated-delta layer.
    """
    mixed, beta = mixer.in_proj_qkv(hidden_states), mixer.in_proj_b(hidden_states).sigmoid()  # (1, T, C), (1, T, heads)
    rate = torch.nn.functional.softplus(mixer.in_proj_a(hidden_states).float() + mixer.dt_bias)
    decay = -mixer.A_log.float().exp() * rate  # (1, T, heads), the logarithm of what stays
    lengths = [piece.num_tokens for piece in pieces]
    tokens = list(zip(*(torch.split(part, lengths, dim=1) for part in (mixed, beta, decay)), strict=True))
    outputs: list[torch.Tensor] = [mixed] * len(pieces)
    single = [place for place, length in enumerate(lengths) if length == 1]
    for group in [single, *([place] for place, length in enumerate(lengths) if length > 1)]:
        if not group:
            continue
        states = [pieces[place].cache.layers[mixer.layer_idx] for place in group]
        found = _stepped(
            mixer, states, *(torch.cat(parts) for parts in zip(*(tokens[place] for place in group), strict=True))
        )
        for place, output in zip(group, found, strict=True):
            outputs[place] = output  # (n, heads, V)
    gate = mixer.in_proj_z(hidden_states).reshape(-1, mixer.head_v_dim)
    joined = mixer.norm(torch.cat(outputs).reshape(-1, mixer.head_v_dim), gate)
    out: torch.Tensor = mixer.out_proj(joined.reshape(1, hidden_states.shape[1], -1))
    return out


def _stepped(
    mixer: Any, states: Sequence[StateLayer], mixed: torch.Tensor, beta: torch.Tensor, decay: torch.Tensor
) -> torch.Tensor:
    """Advance a batch of states by n tokens each: (B, n, C), (B, n, heads) twice, to (B, n, heads, V)."""
    functions = sys.modules[type(mixer).__module__]
    seen = torch.cat([torch.cat([state.conv for state in states]), mixed.transpose(1, 2)], dim=2)  # (B, C, K - 1 + n)
    kernel = mixer.conv1d.weight  # (C, 1, K)
    convolved = torch.nn.functional.conv1d(seen.to(kernel.dtype), kernel, mixer.conv1d.bias, groups=seen.shape[1])
    active = functions.ACT2FN[mixer.activation](convolved).to(mixed.dtype).transpose(1, 2)  # (B, n, C)
    split = active.split([mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=-1)
    sizes = (mixer.head_k_dim, mixer.head_k_dim, mixer.head_v_dim)
    query, key, value = (part.unflatten(-1, (-1, size)) for part, size in zip(split, sizes, strict=True))
    is_one = mixed.shape[1] == 1
    rule = functions.torch_recurrent_gated_delta_rule if is_one else functions.torch_chunk_gated_delta_rule
    found: torch.Tensor
    found, after = rule(
        query,
        key,
        value,
        g=decay,
        beta=beta,
        initial_state=torch.cat([state.recurrent for state in states]),
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    for place, state in enumerate(states):
        part = slice(place, place + 1)
        state.advance(seen[part, :, seen.shape[2] - state.conv.shape[2] :], after[part], mixed.shape[1])
    return found
