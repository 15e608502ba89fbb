"""Keys and values of one sequence, in memory that the engine takes at once.

transformers' dynamic cache concatenates, which copies the whole past for every token and layer; its static one fills
everything with zeros and hands all of it to the attention. The engine knows what a request may need at most when it
arrives, so this layer writes in place, and the limit counts what this module allocates.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from serving.transformers_engine.checkpoint import LanguageModel
from serving.transformers_engine.state import empty_state


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """transformers' dynamic layer over room for keys and values, each (1, kv heads, max tokens, head dim)."""

    def __init__(self, key_room: torch.Tensor, value_room: torch.Tensor) -> None:
        super().__init__()
        self._key_room, self._value_room = key_room, value_room
        self.dtype, self.device = key_room.dtype, key_room.device
        self.keys, self.values = key_room[:, :, :0], value_room[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values (1, kv heads, n, head dim); returns all so far, (1, kv heads, past + n, head dim)."""
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values


def kv_bytes(model: LanguageModel, num_tokens: int) -> int:
    """Bytes of a sequence's keys and values: 2 x layers of attention x key-value heads x head size x tokens x bytes of a
    value. The states of gated-delta layers, which do not grow, do not count."""
    c = model.decoder.config
    return int(2 * sum(_attends(c)) * c.num_key_value_heads * _head_dim(c) * num_tokens * model.dtype.itemsize)


def _head_dim(config: Any) -> int:
    """Channels of a head; a config that does not name them means hidden_size over the number of heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def reserve(model: LanguageModel, num_tokens: int) -> Cache:
    """An empty cache with room for num_tokens. On a CPU the system gives the memory as it is written."""
    c = model.decoder.config
    attends = _attends(c)
    shape = (2, sum(attends), 1, c.num_key_value_heads, num_tokens, _head_dim(c))
    room = torch.empty(shape, dtype=model.dtype, device=model.device)
    rooms = iter(room.unbind(1))
    layers = [
        ReservedLayer(*next(rooms)) if has_room else empty_state(layer.linear_attn, model.dtype, model.device)
        for layer, has_room in zip(model.decoder.layers, attends, strict=True)
    ]
    return Cache(layers=layers)


def _attends(config: Any) -> list[bool]:
    """For each layer, whether it keeps keys and values; the others keep a state."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return [kind != "linear_attention" for kind in kinds]
