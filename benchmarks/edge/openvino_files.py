"""OpenVINO's files: the tower's blocks and mergers, converted once from transformers' modules.

This module computes positions and rotary angles outside, in fp32, and nothing times that: inside, the bf16 hint would
round the angles and cost OpenVINO its accuracy. Frames are a dimension, so no mask exists. Both favour the peer.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from benchmarks.edge import weights
from benchmarks.edge.engines import Rows
from benchmarks.edge.openvino_engine import model_path, positions_path
from benchmarks.edge.sizes import SIZES
from benchmarks.edge.torch_engine import load_tower

CALIBRATION_GRIDS = ((1, 16, 16), (1, 12, 20), (1, 24, 16), (1, 16, 16))


class Frames(torch.nn.Module):
    """The tower on (frames, patches, width) with positions (patches, H), cosines and sines (patches, head)."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower, config = tower, tower.config
        self.num_heads, self.taps = config.num_heads, list(config.deepstack_visual_indexes)
        weight = tower.patch_embed.proj.weight
        self.weight, self.bias = weight.reshape(weight.shape[0], -1), tower.patch_embed.proj.bias

    def turn(self, rows: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        first, second = rows.chunk(2, -1)
        return rows * cosines + torch.cat([-second, first], -1) * sines

    def forward(
        self, pixels: torch.Tensor, positions: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows = torch.nn.functional.linear(pixels, self.weight, self.bias) + positions  # (T, S, H)
        frames, patches, hidden = rows.shape
        levels = []
        for number, block in enumerate(self.tower.blocks):
            packed = block.attn.qkv(block.norm1(rows)).reshape(frames, patches, 3, self.num_heads, -1)
            query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)  # (T, heads, S, head)
            query, key = self.turn(query, cosines, sines), self.turn(key, cosines, sines)
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
            rows = rows + block.attn.proj(mixed.transpose(1, 2).reshape(frames, patches, hidden))
            rows = rows + block.mlp(block.norm2(rows))
            if number in self.taps:
                levels.append(self.tower.deepstack_merger_list[self.taps.index(number)](rows.reshape(-1, hidden)))
        return (self.tower.merger(rows.reshape(-1, hidden)), *levels)


class Positions:
    """transformers' own positions and angles of a frame: float32 (patches, H), (patches, head), (patches, head)."""

    def __init__(self, tower: Any) -> None:
        self._tower = tower

    def __call__(self, sides: tuple[int, int]) -> list[Rows]:
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

        tower, grid = self._tower, torch.tensor([(1, *sides)])
        with torch.inference_mode():
            indices, shares = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=tower.num_grid_per_side,
                mode=tower.interpolation_mode,
                align_corners=tower.interpolation_align_corners,
                spatial_merge_size=tower.spatial_merge_size,
            )
            positions = (tower.pos_embed(indices) * shares[:, :, None]).sum(1)
            angles = tower.rotary_pos_emb(positions, get_vision_position_ids(grid, tower.spatial_merge_size))
        return [part.float().numpy() for part in (positions, *angles)]


def prepare(cache: Path, depth: int, variant: str) -> None:
    """Write, where they are missing, the model in fp32 (its file holds fp16 weights, as OpenVINO's own exporter writes
    them), the calibrated one for int8, and the positions of every size."""
    fp32, path, table = (
        model_path(cache, depth, "fp32"),
        model_path(cache, depth, variant),
        positions_path(cache, depth),
    )
    if path.is_file() and table.is_file():
        return
    tower = load_tower(weights.checkpoint(cache, depth), torch.float32)
    positions = Positions(tower)
    if not fp32.is_file():
        _convert(tower, fp32)
    if not path.is_file():
        _quantise(fp32, path, positions)
    arrays = {}
    for _, height, width in SIZES.values():
        for part, rows in zip(("positions", "cosines", "sines"), positions((height, width)), strict=True):
            arrays[f"{height}x{width}.{part}"] = rows
    np.savez(table, **arrays)  # type: ignore[arg-type]


def _convert(tower: Any, path: Path) -> None:
    frames, patches, head = 2, 16, tower.config.hidden_size // tower.config.num_heads
    widths = {"pixels": 1536, "positions": tower.config.hidden_size, "cosines": head, "sines": head}
    sample = {name: torch.zeros(patches, width) for name, width in widths.items()}
    sample["pixels"] = sample["pixels"].expand(frames, -1, -1).contiguous()
    shapes = [openvino.PartialShape([-1, -1, 1536] if name == "pixels" else [-1, w]) for name, w in widths.items()]
    with torch.no_grad():
        model = openvino.convert_model(Frames(tower).eval(), example_input=sample, input=shapes)
    openvino.save_model(model, path, compress_to_fp16=True)


def _quantise(source: Path, path: Path, positions: Positions) -> None:
    """Apply NNCF's post-training quantisation with its transformer settings, which smooth activations."""
    import nncf

    rng, samples = np.random.default_rng(5), []
    for grid in CALIBRATION_GRIDS:
        coarse = rng.standard_normal((grid[1] * grid[2], 1536), dtype=np.float32)
        samples.append([np.clip(0.6 * coarse, -1, 1)[None], *positions(grid[1:])])
    model = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )
    openvino.save_model(model, path)
