"""Turns a training run into the checkpoint folder for users, as tiny_model.package does."""

import json
from pathlib import Path

from tokenizers import Tokenizer, processors

from tiny_model.package import CHAT_TEMPLATE, save_weights, write_json
from tiny_model.tiles.architecture import BOS, IMAGE, PINPOINTS, SIDE

PROMPT = CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", IMAGE)


def package(run: Path, out: Path) -> None:
    """Write `out`, a folder that AutoModel and AutoProcessor load, from the files of a training run."""
    save_weights(run, out)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    ids = {name: tokenizer.token_to_id(name) for name in (BOS, "<|im_end|>", "<|endoftext|>")}
    tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A", f"{BOS} $A $B", [(BOS, ids[BOS])])
    tokenizer.save(str(out / "tokenizer.json"))
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    write_json(
        out / "generation_config.json",
        {"do_sample": False, "bos_token_id": ids[BOS], "eos_token_id": [end, pad], "pad_token_id": pad},
    )
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "LlavaNextProcessor",
            "bos_token": BOS,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "extra_special_tokens": {"image_token": IMAGE},
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
        },
    )
    vision = json.loads((out / "config.json").read_text())["vision_config"]
    writes = {
        "processor_class": "LlavaNextProcessor",
        "patch_size": vision["patch_size"],
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": IMAGE,
    }
    write_json(out / "processor_config.json", writes)
    write_json(
        out / "preprocessor_config.json",
        {
            "image_processor_type": "LlavaNextImageProcessor",
            "processor_class": "LlavaNextProcessor",
            "size": {"shortest_edge": SIDE},
            "crop_size": {"height": SIDE, "width": SIDE},
            "image_grid_pinpoints": [list(pair) for pair in PINPOINTS],
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "rescale_factor": 1 / 255,
            "resample": 3,
        },
    )
    (out / "chat_template.jinja").write_text(PROMPT)
