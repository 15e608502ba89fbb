"""The state of one sequence in one gated-delta layer. It has one size, however long the sequence is."""

from typing import Any

import torch


class StateLayer:
    """Stands in a sequence's cache where a layer of attention has keys and values.

    Attributes:
        conv: the last inputs of the convolution, (1, C, K - 1).
        recurrent: the memory of the delta rule, float32 (1, heads, K, V).
    """

    def __init__(self, conv: torch.Tensor, recurrent: torch.Tensor) -> None:
        self.conv, self.recurrent = conv, recurrent
        self._num_tokens, self._before = 0, (conv, recurrent, 0)

    def advance(self, conv: torch.Tensor, recurrent: torch.Tensor, num_tokens: int) -> None:
        """Take the states behind num_tokens more tokens, and keep those before. `recurrent` is the layer's from now on."""
        self._before = self.conv, self.recurrent, self._num_tokens
        self.conv, self.recurrent = conv.clone(), recurrent  # a view of conv would keep the whole batch alive
        self._num_tokens += num_tokens

    def spare(self) -> torch.Tensor:
        """Room for the next `recurrent`: that of the state before the last, which nobody needs once a step begins."""
        before = self._before[1]
        return torch.empty_like(before) if before is self.recurrent else before

    def get_seq_length(self) -> int:
        """How many tokens the states have seen; transformers' name."""
        return self._num_tokens

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last step, of so many tokens as a negative number; 0 forgets nothing. transformers' name.

        Raises:
            ValueError: the last step had another number of tokens. Older states are gone.
        """
        if tokens_to_remove == 0:
            return
        if self._before[2] != self._num_tokens + tokens_to_remove:
            raise ValueError(f"the last step had {self._num_tokens - self._before[2]} tokens, not {-tokens_to_remove}")
        self.conv, self.recurrent, self._num_tokens = self._before


def empty_state(mixer: Any, dtype: torch.dtype, device: torch.device) -> StateLayer:
    """The state of transformers' gated-delta layer before the first token: zeros."""
    conv = torch.zeros((1, mixer.conv_dim, mixer.conv_kernel_size - 1), dtype=dtype, device=device)
    shape = (1, mixer.num_v_heads, mixer.head_k_dim, mixer.head_v_dim)
    return StateLayer(conv, torch.zeros(shape, dtype=torch.float32, device=device))
