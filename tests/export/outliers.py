"""Loud channels written into the tower of a checkpoint, as real towers have them and random ones lack.

`mid`: loud in the residual stream, behind both norms, in the MLP and in the values, partly taken back by the next
weight. `harsh`: norm gains of 12 and heavy MLP units that nothing takes back; small errors grow from block to block.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def make_loud(folder: Path, kind: str) -> None:
    """Change the one safetensors file of a checkpoint in place."""
    tensors = load_file(folder / WEIGHTS)
    tower = {k.removeprefix("model.visual."): v.float() for k, v in tensors.items() if k.startswith("model.visual.")}
    {"mid": _mid, "harsh": _harsh}[kind](tower, torch.Generator().manual_seed(11))
    tensors |= {f"model.visual.{k}": v.to(tensors[f"model.visual.{k}"].dtype) for k, v in tower.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _some(size: int, one_of: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(size, generator=generator)[: math.ceil(size / one_of)]


def _blocks(tower: dict[str, torch.Tensor]) -> list[str]:
    return sorted({name.split(".attn")[0] for name in tower if ".attn.qkv.weight" in name})


def _mid(tower: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    hidden = tower["pos_embed.weight"].shape[1]
    tower["pos_embed.weight"][:, _some(hidden, 100, generator)] *= 20
    for block in _blocks(tower):
        for norm, linear in (("norm1", "attn.qkv"), ("norm2", "mlp.linear_fc1")):
            loud = _some(hidden, 100, generator)
            tower[f"{block}.{norm}.weight"][loud] *= 8
            tower[f"{block}.{norm}.bias"][loud] *= 8
            tower[f"{block}.{linear}.weight"][:, loud] /= 4
        units = _some(tower[f"{block}.mlp.linear_fc1.bias"].shape[0], 200, generator)
        tower[f"{block}.mlp.linear_fc1.weight"][units] *= 6
        tower[f"{block}.mlp.linear_fc2.weight"][:, units] /= 3
        values = _some(hidden, 100, generator)
        tower[f"{block}.attn.qkv.weight"][2 * hidden + values] *= 6
        tower[f"{block}.attn.qkv.bias"][2 * hidden + values] *= 6
        tower[f"{block}.attn.proj.weight"][:, values] /= 3


def _harsh(tower: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    hidden = tower["pos_embed.weight"].shape[1]
    loud = _some(hidden, 100, generator)
    for block in _blocks(tower):
        tower[f"{block}.norm1.weight"][loud] *= 12
        tower[f"{block}.norm2.weight"][loud] *= 12
        units = _some(tower[f"{block}.mlp.linear_fc1.bias"].shape[0], 200, generator)
        tower[f"{block}.mlp.linear_fc1.weight"][units] *= 6
        tower[f"{block}.mlp.linear_fc2.weight"][:, units] *= 0.5
        tower[f"{block}.mlp.linear_fc2.weight"][loud] *= 4
