"""transformers' own tower and connector over tiles; like a Qwen tower it takes patches and grids, and returns rows."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

PARTS = ("vision_tower", "multi_modal_projector")
Select = Callable[[Any], torch.Tensor]


class TileOracle(nn.Module):
    """The parameters have the names of a checkpoint, vision_tower.* and multi_modal_projector.* for example.

    Args:
        config: the resolved config of the whole model.
        select: takes the vision tower's outputs and returns the connector's input, (tiles, rows, width).
        side, patch: sides of a tile and of a patch in pixels.
        merge: patches along a side of a merge block.
        parts: the model's names of tower and connector.
    """

    def __init__(
        self, config: Any, select: Select, *, side: int, patch: int, merge: int, parts: tuple[str, str] = PARTS
    ) -> None:
        super().__init__()
        import transformers

        with torch.device("meta"):
            whole = transformers.AutoModel.from_config(config, attn_implementation="sdpa")
        for name in parts:
            self.add_module(name, getattr(whole, name))
        if hasattr(whole, "image_newline"):
            self.image_newline = whole.image_newline
        for module in self.modules():  # a buffer is no parameter of the checkpoint: make it again, on a real device
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_meta:
                    setattr(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
        self._select, self._side, self._patch, self._merge, self._parts = select, side, patch, merge, parts

    def forward(self, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> Any:
        """pixel_values float32 (patches, 3 * patch^2) in the order of merge blocks, grid_thw int64 (num_items, 3) of
        tiles; `pooler_output` of the result has the rows, (N, H)."""
        patch, merge = self._patch, self._merge
        blocks = int(grid_thw[0, 1]) // merge if len(grid_thw) else self._side // patch // merge
        parts = pixel_values.reshape(-1, blocks, blocks, merge, merge, 3, patch, patch)
        seen = blocks * merge * patch
        tiles = parts.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(-1, 3, seen, seen)
        tiles = nn.functional.pad(tiles, (0, self._side - seen, 0, self._side - seen))  # no patch covers the rest
        tower, connector = map(self.get_submodule, self._parts)
        features = self._select(tower(tiles, output_hidden_states=True, return_dict=True))
        rows = connector(features)  # (tiles, rows of a tile, H)
        return SimpleNamespace(pooler_output=rows.flatten(0, 1))


def taken(layers: tuple[int, ...], *, drops_first: bool) -> Select:
    """A function that puts the hidden states of these numbers side by side, without the class row if `drops_first`."""

    def select(outputs: Any) -> torch.Tensor:
        states = [outputs.hidden_states[number] for number in layers]
        return torch.cat([state[:, 1:] if drops_first else state for state in states], dim=-1)

    return select
