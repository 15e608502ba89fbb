"""Gated-delta layers over a row in which the tokens of many sequences stand one after the other.

Projections, norms and gates work on tokens alone, so the row shares them. The convolution and the delta rule carry a
state from token to token: sequences that add one token each run as one batch, and each chunk of a prompt continues its
own state. transformers' function computes the rule of a chunk. The rule of one token is written here, because reading
and writing the states, which streams cannot share, is what it costs.
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
    """Advance a batch of states by one token each, or one state by n: (B, n, C), (B, n, heads) twice, to (B, n, heads, V)."""
    functions, num_tokens = sys.modules[type(mixer).__module__], mixed.shape[1]
    seen = torch.cat([torch.cat([state.conv for state in states]), mixed.transpose(1, 2)], dim=2)  # (B, C, K - 1 + n)
    kernel = mixer.conv1d.weight  # (C, 1, K)
    convolved = torch.nn.functional.conv1d(seen.to(kernel.dtype), kernel, mixer.conv1d.bias, groups=seen.shape[1])
    active = functions.ACT2FN[mixer.activation](convolved).to(mixed.dtype).transpose(1, 2)  # (B, n, C)
    split = active.split([mixer.key_dim, mixer.key_dim, mixer.value_dim], dim=-1)
    sizes = (mixer.head_k_dim, mixer.head_k_dim, mixer.head_v_dim)
    query, key, value = (part.unflatten(-1, (-1, size)) for part, size in zip(split, sizes, strict=True))
    found: torch.Tensor
    if num_tokens == 1:
        found, after = one_token(states, *(part[:, 0].float() for part in (query, key, value, beta, decay)))
        found = found[:, None].to(mixed.dtype)
    else:
        (state,) = states
        rule = partial(functions.torch_chunk_gated_delta_rule, output_final_state=True, use_qk_l2norm_in_kernel=True)
        size = min(num_tokens, 64)  # the rule fills up to a whole chunk with zeros; 64 is its own choice
        found, moved = rule(query, key, value, g=decay, beta=beta, initial_state=state.recurrent, chunk_size=size)
        after = [moved]
    for conv, state, recurrent in zip(torch.split(seen, 1), states, after, strict=True):
        state.advance(conv[:, :, num_tokens:], recurrent, num_tokens)
    return found


def one_token(
    states: Sequence[StateLayer],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    beta: torch.Tensor,
    decay: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the new states say to the query (B, heads, V), and these states, in the rooms of those before the last.

    With a = exp(decay), S the state and k, q of length 1: d = beta (v - a Sᵀk), S' = a S + k dᵀ, and what S' says to q is
    a Sᵀq + (k·q) d. So S is read once for both. It is transformers' `torch_recurrent_gated_delta_rule`, which reads and
    writes the states of all sequences some ten times.

    Args:
        query, key: (B, heads or a divisor, K).
        value: (B, heads, V).
        beta, decay: (B, heads).
    """
    key, query = (part.repeat_interleave(value.shape[1] // part.shape[1], dim=1) for part in (key, query))
    key, query = (part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (key, query))
    both = torch.stack([key, query * query.shape[-1] ** -0.5], dim=2)  # (B, heads, 2, K)
    stays = decay.exp()[:, :, None, None]  # (B, heads, 1, 1)
    says = torch.stack([pair @ state.recurrent[0] for pair, state in zip(both, states, strict=True)]) * stays
    delta = (value - says[:, :, 0]) * beta[:, :, None]  # (B, heads, V)
    after = []
    for place, state in enumerate(states):
        recurrent = torch.mul(state.recurrent, stays[place], out=state.spare())
        after.append(recurrent.addcmul_(key[place, :, :, None], delta[place, :, None]))
    return says[:, :, 1] + (both[:, :, 0] * both[:, :, 1]).sum(-1, keepdim=True) * delta, after
