"""Turns a training run into the checkpoint folder for users: bf16 weights, tokenizer, template, processor files."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tiny_model.architecture import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE

MIN_PIXELS, MAX_PIXELS = 96 * 96, 160 * 160  # the canvas sizes that training used
MAX_VIDEO_PIXELS = 8 * MAX_PIXELS
CHAT_TEMPLATE = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% if message.content is string %}
{{ message.content }}
{%- else %}
{% for part in message.content %}
{% if part.type in ('image', 'image_url') or 'image' in part or 'image_url' in part %}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part %}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part %}
{{ part.text }}
{%- endif %}
{% endfor %}
{% endif %}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def save_weights(run: Path, out: Path) -> None:
    """Write model.safetensors in bf16, and config.json, from those of a training run."""
    out.mkdir(parents=True, exist_ok=True)
    weights = load_file(run / "model.safetensors")
    save_file(
        {k: v.to(torch.bfloat16).contiguous() for k, v in weights.items()}, out / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((run / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("dtype", None)
    write_json(out / "config.json", config | {"dtype": "bfloat16"})


def package(run: Path, out: Path) -> None:
    """Write `out`, a folder that AutoModel and AutoProcessor load, from the files of a training run."""
    save_weights(run, out)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    tokenizer.save(str(out / "tokenizer.json"))
    end, pad = (tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>"))
    write_json(out / "generation_config.json", {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad})
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen3VLProcessor",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "split_special_tokens": False,
        },
    )
    processor = {
        "processor_class": "Qwen3VLProcessor",
        "patch_size": PATCH_SIZE,
        "merge_size": MERGE_SIZE,
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    write_json(
        out / "preprocessor_config.json",
        processor | {"image_processor_type": "Qwen2VLImageProcessorFast", "size": size},
    )
    size = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_VIDEO_PIXELS}
    write_json(
        out / "video_preprocessor_config.json",
        processor | {"video_processor_type": "Qwen3VLVideoProcessor", "size": size},
    )
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
