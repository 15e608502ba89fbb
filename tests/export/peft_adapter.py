"""Adapters that PEFT itself saves, and the model that its merge_and_unload gives: `python -m tests.export.peft_adapter`.

It runs in a process of its own with PEFT's folder on the path, because transformers behaves otherwise where PEFT and
accelerate are installed, and an export needs neither.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tests.processor  # noqa: F401  declares torchvision's operators before transformers is imported

CASES: dict[str, dict[str, Any]] = {
    "language": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "lm_head"]},
    "tower": {"r": 2, "lora_alpha": 3, "target_modules": ["qkv", "linear_fc1", "linear_fc2"]},
    "patterns": {
        "r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "gate_proj", "proj", "merger.linear_fc2"],
        "exclude_modules": ["patch_embed.proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 7, r"blocks\.\d+\.attn\.proj": 3},
        "alpha_pattern": {"gate_proj": 1, "model.visual.merger.linear_fc2": 24},
    },
}  # fmt: skip


def main(base: Path, out: Path) -> None:
    """For each case an adapter in out/NAME and every tensor of the merged model in out/NAME.safetensors."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    for number, (name, values) in enumerate(CASES.items()):
        model = get_peft_model(Qwen3VLForConditionalGeneration.from_pretrained(base), LoraConfig(**values))
        generator = torch.Generator().manual_seed(number)
        for key, value in model.named_parameters():
            if "lora_" in key:  # PEFT begins with B = 0, which would change nothing
                value.data = torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
        model.save_pretrained(out / name)
        loaded = PeftModel.from_pretrained(Qwen3VLForConditionalGeneration.from_pretrained(base), out / name)
        merged = loaded.merge_and_unload().state_dict()
        save_file({key: value.clone() for key, value in merged.items()}, out / f"{name}.safetensors")
        assert json.loads((out / name / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
