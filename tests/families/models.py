"""Whole checkpoints of each family with random weights, as transformers' own classes save them.

Matrices preserve variance and position tables are loud: with the default initialisation InternVL's table and class row
are zero, and a wrong graph would pass.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tests import processor as _declares_torchvision  # noqa: F401  before transformers' video processors

ALL = os.environ.get("EDGE_VLM_TEST_FAMILIES") == "all"  # `make test-families`; `make test` takes a sample
SPECIAL = (
    *("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)
IDS = {token: number for number, token in enumerate(SPECIAL)}
MARKERS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 8192,
    "bos_token_id": IDS["<s>"],
    "eos_token_id": IDS["</s>"],
    "pad_token_id": IDS["<pad>"],
}
CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 32,
}
SIGLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 60,  # 4 pixels more than whole patches cover, as 384 has 6
    "patch_size": 14,
}
INTERNVIT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
    "attention_bias": True,
}
TALL_PINPOINTS = [[60 * rows, 60 * columns] for rows in range(1, 5) for columns in range(1, 5)]
Layer = int | list[int]  # numbers of hidden states
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE\n{% elif part['type'] == 'video' %}VIDEO\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def fast_tokenizer(*, adds_bos: bool) -> Any:
    """Bytes and special tokens; the Llama families begin a text with <s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = IDS | {byte: number for number, byte in enumerate(alphabet, len(SPECIAL))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    if adds_bos:
        made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", IDS["<s>"])])
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>", "extra_special_tokens": MARKERS}
    if adds_bos:
        names["bos_token"] = "<s>"
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, **names)


def loud(model: Any, seed: int = 0) -> Any:
    """The model with weights that preserve variance, gains around 1 and biases that matter."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(parameter: torch.Tensor) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator)

    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim > 1 and ("position" in name or "embed_tokens" in name or "cls_token" in name):
                parameter.copy_(drawn(parameter))
            elif parameter.ndim > 1:
                parameter.copy_(drawn(parameter) / math.sqrt(parameter[0].numel()))
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * drawn(parameter))
            elif "lambda" in name:
                parameter.copy_(0.5 + 0.2 * drawn(parameter))
            else:
                parameter.copy_(0.2 * drawn(parameter))
    return model.eval().requires_grad_(False)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse blocks and fine noise."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3))
    coarse = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
    fine = random.integers(-40, 41, (height, width, 3))
    return Image.fromarray((coarse + fine).clip(0, 255).astype(np.uint8))


def _llava(*, layer: Layer = -2, select: str = "default", pads: bool = False, **tower: Any) -> tuple[Any, Any]:
    """With `pads` a picture becomes a square of its longer side; else its middle is cropped."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    vision = CLIP | tower
    side = vision["image_size"]
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**vision),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=IDS["<image>"],
        vision_feature_layer=layer,
        vision_feature_select_strategy=select,
    )
    square = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
    if pads:
        images = LlavaImageProcessorPil(do_pad=True, size=square, crop_size=square)
    writes = {"patch_size": 14, "vision_feature_select_strategy": select, "num_additional_image_tokens": 1}
    return config, tf.LlavaProcessor(images, fast_tokenizer(adds_bos=True), **writes)


def _llava_next(*, layer: Layer = -2, select: str = "default") -> tuple[Any, Any]:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**CLIP),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=IDS["<image>"],
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=layer,
        vision_feature_select_strategy=select,
    )
    sizes = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    images = LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=PINPOINTS)
    writes = {"patch_size": 14, "vision_feature_select_strategy": select, "num_additional_image_tokens": 1}
    return config, tf.LlavaNextProcessor(images, fast_tokenizer(adds_bos=True), **writes)


def _llava_onevision() -> tuple[Any, Any]:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=tf.Qwen2Config(**TEXT),
        image_token_id=IDS["<image>"],
        video_token_id=IDS["<video>"],
        image_grid_pinpoints=TALL_PINPOINTS,
        vision_aspect_ratio="anyres_max_4",
        tie_word_embeddings=False,
    )
    size = {"size": {"height": 60, "width": 60}}
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = LlavaOnevisionImageProcessorPil(**size, **statistics, image_grid_pinpoints=TALL_PINPOINTS)
    videos = tf.LlavaOnevisionVideoProcessor(**size, **statistics)
    writes = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_4"}
    return config, tf.LlavaOnevisionProcessor(images, fast_tokenizer(adds_bos=False), videos, **writes)


def _internvl(**tower: Any) -> tuple[Any, Any]:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    vision = INTERNVIT | tower
    side, rows = vision["image_size"], (vision["image_size"] // vision["patch_size"] // 2) ** 2
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(**vision),
        text_config=tf.Qwen2Config(**TEXT),
        image_token_id=IDS["<IMG_CONTEXT>"],
        image_seq_length=rows,
        tie_word_embeddings=False,
    )
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    size = {"size": {"height": side, "width": side}}
    images = GotOcr2ImageProcessorPil(**size, **statistics, min_patches=1, max_patches=12)
    videos = tf.InternVLVideoProcessor(**size, **statistics)
    return config, tf.InternVLProcessor(images, fast_tokenizer(adds_bos=False), videos, image_seq_length=rows)


def _smolvlm() -> tuple[Any, Any]:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    config = tf.SmolVLMConfig(
        vision_config=SIGLIP | {"image_size": 56},
        text_config=tf.LlamaConfig(**TEXT),
        image_token_id=IDS["<image>"],
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 168}, "max_image_size": {"longest_edge": 56}}
    images = SmolVLMImageProcessorPil(**sizes)
    videos = tf.SmolVLMVideoProcessor(**sizes | {"size": {"longest_edge": 56}}, fps=1, num_frames=8)
    return config, tf.SmolVLMProcessor(images, fast_tokenizer(adds_bos=False), videos, image_seq_len=4)


@dataclass(frozen=True)
class Kind:
    """How a family is made, and the pads its template writes."""

    make: Callable[..., tuple[Any, Any]]
    image: str
    video: str = ""
    side: int = 56  # pixels of a tile


KINDS = {
    "llava": Kind(_llava, "<image>"),
    "llava_next": Kind(_llava_next, "<image>"),
    "llava_onevision": Kind(_llava_onevision, "<image>", "<video>", 60),
    "smolvlm": Kind(_smolvlm, "<image>", "<video>"),
    "internvl": Kind(_internvl, "<IMG_CONTEXT>", "<video>"),
}


def write(family: str, folder: Path, **given: Any) -> Path:
    """Save a checkpoint of the family: model, processor, tokenizer, chat template.

    Args:
        given: what the family's maker takes: other values of the vision config, and other choices.
    """
    kind = KINDS[family]
    config, processor = kind.make(**given)
    model = loud(tf.AutoModelForImageTextToText.from_config(config), seed=1)
    model.generation_config.eos_token_id = None  # random weights choose any token
    model.save_pretrained(folder)
    processor.chat_template = TEMPLATE.replace("IMAGE", kind.image).replace("VIDEO", kind.video)
    processor.save_pretrained(folder)
    return folder
