"""Positions that come with a request, in the place of those that vLLM would find.

A video may have dropped rows, and every token keeps the position that it has in the whole prompt (contract.rows). vLLM
knows neither the mask nor the whole prompt, so the server's own process finds the positions and sends them as a field
of an item.
"""

from typing import Any

import torch

FIELD = "edge_vlm_positions"  # int64 (3, S + 1): of the tokens, and of the next one


class PositionsGiven:
    """The mixin; vLLM's own class, or another mixin, comes behind it and finds all other positions."""

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        """vLLM's hook: positions (3, S) of a prompt, and the position after it minus S."""
        for feature in mm_features:
            if (element := feature.data.get(FIELD)) is not None:
                given: torch.Tensor = element.data
                return given[:, :-1], int(given[0, -1]) - len(input_tokens)
        found: tuple[torch.Tensor, int] = super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]
        return found
