"""Small mixtures of experts, in the three layouts that checkpoints have."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from tests.export.tiny_checkpoint import write_checkpoint, write_json

NUM_EXPERTS, WIDTH = 4, 32
GATE_UP, DOWN = "experts.gate_up_proj", "experts.down_proj"  # (experts, 2 * WIDTH, hidden), (experts, hidden, WIDTH)


def as_saved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What save_pretrained of transformers 5.23 writes."""
    return weights


def as_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the published checkpoints hold: both fused tensors are the other way round."""
    return {
        name: value.transpose(1, 2).contiguous() if name.endswith((GATE_UP, DOWN)) else value
        for name, value in weights.items()
    }


def one_tensor_an_expert(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What training tools and transformers 4 write."""
    found = {}
    for name, value in weights.items():
        if name.endswith(GATE_UP):
            for expert, both in enumerate(value):
                for kind, half in zip(("gate", "up"), both.chunk(2), strict=True):
                    found[name.replace("gate_up_proj", f"{expert}.{kind}_proj.weight")] = half.contiguous()
        elif name.endswith(DOWN):
            for expert, matrix in enumerate(value):
                found[name.replace("down_proj", f"{expert}.down_proj.weight")] = matrix.contiguous()
        else:
            found[name] = value
    return found


LAYOUTS = {"as saved": as_saved, "as published": as_published, "one tensor an expert": one_tensor_an_expert}


def write_experts(folder: Path, layout: str) -> Qwen3VLMoeForConditionalGeneration:
    """Write a checkpoint in one of LAYOUTS; returns the model that transformers made of the same numbers."""
    write_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "qwen3_vl_moe",
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "dtype": "float32",
    }
    config["text_config"] |= {
        "model_type": "qwen3_vl_moe_text", "num_experts": NUM_EXPERTS, "num_experts_per_tok": 2,
        "moe_intermediate_size": WIDTH, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    config["vision_config"]["model_type"] = "qwen3_vl_moe_vision"
    model = Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(**config)).eval()
    generator = torch.Generator().manual_seed(5)
    for value in model.parameters():
        if value.ndim > 1:
            value.data = torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
    model.save_pretrained(folder)
    weights = LAYOUTS[layout](load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": 1})
    return model
