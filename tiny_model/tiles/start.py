"""Starts the model with tiles from the weights of models/tiny wherever the shapes fit.

The towers differ: CLIP has learned positions and no rotary ones, a norm before the first block, and one temporal slice.
The language models differ: Llama does not normalise queries and keys. Training mends the rest.

LLaVA's connector has no norm before its first layer, so the tower's states are made 16 times smaller. Each block norms
what it reads, and does not notice.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate

PATCHES, STREAM = 11.7, 16.0  # RMS of models/tiny's patch embeddings, and of the states that its last blocks see


def start_from(model: Any, checkpoint: Path) -> None:
    """Copy the weights of a tiny_model checkpoint into a LlavaNextForConditionalGeneration of tiles_config."""
    weights = {name: value.float() for name, value in load_file(checkpoint / "model.safetensors").items()}
    with torch.no_grad():
        _tower(model.model.vision_tower, weights)
        _language(model.model.language_model, weights)


def _tower(tower: Any, weights: dict[str, torch.Tensor]) -> None:
    prefix = "model.visual."
    embeddings = tower.embeddings
    embeddings.patch_embedding.weight.copy_(weights[prefix + "patch_embed.proj.weight"].sum(2))  # a still's two slices
    table, side = weights[prefix + "pos_embed.weight"], tower.config.image_size // tower.config.patch_size
    old = int(len(table) ** 0.5)
    grid = interpolate(table.T.reshape(1, -1, old, old), size=(side, side), mode="bilinear", align_corners=True)
    embeddings.position_embedding.weight[1:].copy_(grid.flatten(2)[0].T + weights[prefix + "patch_embed.proj.bias"])
    embeddings.position_embedding.weight[0].zero_()
    tower.pre_layrnorm.weight.fill_(PATCHES / STREAM)
    for number, block in enumerate(tower.encoder.layers):
        old_block = f"{prefix}blocks.{number}."
        for kind in ("weight", "bias"):
            parts = weights[f"{old_block}attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                getattr(getattr(block.self_attn, name), kind).copy_(part)
            for new, name in (
                (block.self_attn.out_proj, "attn.proj"),
                (block.layer_norm1, "norm1"),
                (block.layer_norm2, "norm2"),
                (block.mlp.fc1, "mlp.linear_fc1"),
                (block.mlp.fc2, "mlp.linear_fc2"),
            ):
                writes = name in ("attn.proj", "mlp.linear_fc2")
                getattr(new, kind).copy_(weights[f"{old_block}{name}.{kind}"] / (STREAM if writes else 1))


def _language(language: Any, weights: dict[str, torch.Tensor]) -> None:
    prefix, norms = "model.language_model.", ("q_norm", "k_norm")
    for name, parameter in language.named_parameters():
        old = weights[prefix + name]
        for projection, norm in zip(("q_proj", "k_proj"), norms, strict=True):
            if projection in name:  # scaled to what the norm makes of inputs of variance 1
                before = weights[prefix + name.split("self_attn")[0] + "input_layernorm.weight"]
                gain = weights[prefix + name.replace(f"{projection}.weight", f"{norm}.weight")]
                size = (old * before).pow(2).sum(1).mean().sqrt()
                old = old * gain.repeat(len(old) // len(gain))[:, None] / size
        if old.shape == parameter.shape:
            parameter.copy_(old)
