"""Checkpoints of the real layout with random weights, small enough to export in a second.

The weights preserve variance and the position table is large: with transformers' default initialisation the blocks
hardly move the residual stream, and a graph that ignores the grid still reaches a cosine of 0.9999999.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

BUNDLED = Path(__file__).parents[2] / "models" / "tiny"  # its tokenizer and chat template
TOWER = {
    "depth": 4,
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_heads": 4,
    "deepstack_visual_indexes": [0, 2, 3],
    "num_position_embeddings": 576,
}
TOWER_72 = {  # head_dim 72 as in the 8B tower, no deepstack
    "depth": 2,
    "hidden_size": 144,
    "intermediate_size": 268,
    "num_heads": 2,
    "deepstack_visual_indexes": [],
    "num_position_embeddings": 144,
}
H = 48
TEXT = {
    "hidden_size": H,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "video_processor_type": "Qwen3VLVideoProcessor",
    "processor_class": "Qwen3VLProcessor",
    "size": {"shortest_edge": 1024, "longest_edge": 1 << 20},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def _config(tower: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "image_token_id": 489,
        "video_token_id": 490,
        "vision_start_token_id": 486,
        "vision_end_token_id": 487,
        "text_config": {"model_type": "qwen3_vl_text", "tie_word_embeddings": False, **TEXT},
        "vision_config": {
            "model_type": "qwen3_vl_vision",
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": H,
            **tower,
        },
    }


def _weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config))
    generator = torch.Generator().manual_seed(7)

    def draw(name: str, like: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(like.shape, generator=generator)
        if "pos_embed" in name:
            return 0.5 * noise
        if like.ndim > 1:
            return noise / math.sqrt(like[0].numel())
        return 0.02 * noise if name.endswith("bias") else 1 + 0.1 * noise

    return {name: draw(name, like) for name, like in model.state_dict().items()}


def write_checkpoint(
    folder: Path,
    tower: dict[str, Any] = TOWER,
    dtype: torch.dtype = torch.bfloat16,
    num_shards: int = 1,
    prefix: str = "model.visual.",
) -> Path:
    """Write config, processors, tokenizer, template and weights; num_shards 1 is a single file."""
    folder.mkdir(parents=True)
    config = _config(tower)
    weights = {k.replace("model.visual.", prefix): v.to(dtype) for k, v in _weights(config).items()}
    names = sorted(weights)
    if num_shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    else:
        places = {
            name: f"model-{i % num_shards + 1:05d}-of-{num_shards:05d}.safetensors" for i, name in enumerate(names)
        }
        for file in sorted(set(places.values())):
            save_file({n: weights[n] for n in names if places[n] == file}, folder / file, {"format": "pt"})
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    write_json(folder / "config.json", config | {"dtype": str(dtype).removeprefix("torch.")})
    write_json(folder / "preprocessor_config.json", PROCESSOR)
    write_json(folder / "video_preprocessor_config.json", PROCESSOR)
    write_json(folder / "generation_config.json", {"eos_token_id": 1})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BUNDLED / name, folder / name)
    return folder


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def change_json(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file; a key `vision_config__depth` reaches inside."""
    values = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = values
        for name in outer:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    write_json(path, values)


OTHER_IDS = {"image_token_id": 484, "video_token_id": 485, "vision_start_token_id": 482, "vision_end_token_id": 483}


def change_token_ids(model: Path) -> None:
    """Give pictures and videos OTHER_IDS in config and tokenizer, as a family with another vocabulary has them."""
    config, tokenizer = (json.loads((model / name).read_text()) for name in ("config.json", "tokenizer.json"))
    tokens = {token["id"]: token for token in tokenizer["added_tokens"]}
    for name, other in OTHER_IDS.items():
        token, swapped = tokens[config[name]], tokens[other]
        token["content"], swapped["content"] = swapped["content"], token["content"]
    write_json(model / "tokenizer.json", tokenizer)
    change_json(model / "config.json", **OTHER_IDS)
