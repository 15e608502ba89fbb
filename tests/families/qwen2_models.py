"""Whole checkpoints of Qwen2-VL and Qwen2.5-VL with random weights, as the hub has them."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers as tf

from tests.families.models import loud

TINY = Path(__file__).parents[2] / "models" / "tiny"
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 4, 4]},
}
GRID = {"num_heads": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
WINDOWS = GRID | {
    "depth": 3,
    "hidden_size": 80,
    "intermediate_size": 108,
    "out_hidden_size": 128,
    "fullatt_block_indexes": [1],
    "window_size": 112,
    "tokens_per_second": 2,
}
WHOLE = GRID | {"depth": 2, "embed_dim": 80, "hidden_size": 128, "mlp_ratio": 2}
PROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12_845_056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
}
FAMILIES = ("qwen2_vl", "qwen2_5_vl")


def write(family: str, folder: Path) -> Path:
    """Save a checkpoint of the family; the config has the language model's keys at the top, as on the hub."""
    tiny = json.loads((TINY / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    given: dict[str, Any] = {name: tiny[name] for name in names}
    text = TEXT | {"vocab_size": tiny["text_config"]["vocab_size"]}
    if family == "qwen2_vl":
        config, kind = tf.Qwen2VLConfig(text_config=text, vision_config=WHOLE, **given), "Qwen2VL"
    else:
        config, kind = tf.Qwen2_5_VLConfig(text_config=text, vision_config=WINDOWS, **given), "Qwen2_5_VL"
    model = loud(getattr(tf, f"{kind}ForConditionalGeneration")(config))
    model.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    flat = {key: value for key, value in values.pop("text_config").items() if key not in ("model_type", "dtype")}
    (folder / "config.json").write_text(json.dumps(flat | values))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, folder / name)
    processor = PROCESSOR | {"processor_class": f"{kind}Processor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
