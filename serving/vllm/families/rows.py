"""What vLLM's classes of the families without grids need: finished rows, one tensor an item, as they come.

vLLM 0.32 parses `image_embeds` of these families as one tensor. Two pictures of different numbers of rows in one step,
also of two users, then end the engine with "data contains inconsistent shapes". Positions have one axis, as vLLM's
usual ones do.
"""

from typing import Any

import torch


class RowsGiven:
    """The mixin; vLLM's own class comes behind it."""

    def embed_multimodal(self, **fields: Any) -> list[torch.Tensor]:
        """vLLM's hook: the rows (n, H) of each item, in prompt order."""
        return list(fields.get("image_embeds", ()))
