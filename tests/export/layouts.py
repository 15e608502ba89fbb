"""Ways in which the same model lies in a folder: each is made from the bundled model in a moment."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.export.quantised import SINGLE, quantised
from tests.export.tiny_checkpoint import BUNDLED, change_json, write_json

Change = Callable[[Path], None]
PICTURES, VIDEOS, NESTED = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"
INDEX = "model.safetensors.index.json"


def read(model: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / name).read_text())
    return found


def both(**changes: Any) -> Change:
    """Change the picture and the video processor alike."""

    def change(model: Path) -> None:
        for name in (PICTURES, VIDEOS):
            write_json(model / name, read(model, name) | changes)

    return change


def one(file: str, *, drop: tuple[str, ...] = (), **changes: Any) -> Change:
    """Change one JSON file; None is written as null."""

    def change(model: Path) -> None:
        values = read(model, file) | changes
        write_json(model / file, {name: value for name, value in values.items() if name not in drop})

    return change


def nested(model: Path) -> None:
    """What AutoProcessor.save_pretrained of transformers 5.23 writes."""
    parts = {"image_processor": read(model, PICTURES), "video_processor": read(model, VIDEOS)}
    write_json(model / NESTED, {"processor_class": "Qwen3VLProcessor", **parts})
    for name in (PICTURES, VIDEOS):
        (model / name).unlink()


def nested_before(model: Path) -> None:
    """Both kinds of files: the nested one goes first."""
    stale = {name: read(model, name) for name in (PICTURES, VIDEOS)}
    nested(model)
    for name, values in stale.items():
        write_json(model / name, values | {"size": {"shortest_edge": 1024, "longest_edge": 4096}})


def old_tokenizer(model: Path) -> None:
    """vocab.json and merges.txt, the added tokens in tokenizer_config.json."""
    tokenizer = read(model, "tokenizer.json")
    write_json(model / "vocab.json", tokenizer["model"]["vocab"])
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"])
    (model / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = {str(token.pop("id")): token for token in tokenizer["added_tokens"]}
    change_json(model / "tokenizer_config.json", added_tokens_decoder=added)
    (model / "tokenizer.json").unlink()


def own_normaliser(model: Path) -> None:
    """tokenizer.json lowers the case; transformers' Qwen2Tokenizer takes its vocabulary alone, and does not."""
    change_json(model / "tokenizer.json", normalizer={"type": "Lowercase"})


def in_shards(model: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Two files and an index, beside what is there."""
    weights = weights or load_file(model / SINGLE)
    names = sorted(weights)
    files = {name: f"model-{1 + i % 2:05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, model / file, {"format": "pt"})
    write_json(model / INDEX, {"metadata": {}, "weight_map": files})


def differing_shards(model: Path) -> None:
    weights = load_file(model / SINGLE)
    name = "model.visual.merger.linear_fc2.weight"
    in_shards(model, weights | {name: weights[name] * 1.5})


def stale_index(model: Path) -> None:
    write_json(model / INDEX, {"weight_map": {"model.gone": "model-00001-of-00002.safetensors"}})


def legacy_template(model: Path) -> None:
    """Older checkpoints keep it in a JSON file, which transformers takes before a newer file."""
    template = (model / "chat_template.jinja").read_text()
    write_json(model / "chat_template.json", {"chat_template": template})
    (model / "chat_template.jinja").write_text("{{ raise_exception('not this one') }}")


def tokenizers_template(model: Path) -> None:
    change_json(model / "tokenizer_config.json", chat_template=(model / "chat_template.jinja").read_text())
    (model / "chat_template.jinja").unlink()


GENERATION = """{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}
{%- if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{{ eos_token }}{% endif %}
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}{{ pad_token }}"""


def trained_template(model: Path) -> None:
    """What training tools write."""
    (model / "chat_template.jinja").write_text(GENERATION)


def adapter_beside(model: Path) -> None:
    write_json(model / "adapter_config.json", {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "Base/Model"})
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 1)}, model / "adapter_model.safetensors")


def wrapped(model: Path) -> None:
    weights = load_file(model / SINGLE)
    save_file({f"base_model.model.{name}": tensor for name, tensor in weights.items()}, model / SINGLE)


def adapter_alone(model: Path) -> None:
    adapter_beside(model)
    (model / SINGLE).unlink()


def quantised_tower(model: Path) -> None:
    quantised("fp8")(model)
    weights = load_file(model / SINGLE)
    name = "model.visual.blocks.0.attn.qkv.weight"
    save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, model / SINGLE, {"format": "pt"})


def untied(model: Path) -> None:
    config = read(model, "config.json")
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    write_json(model / "config.json", config)


def endless(model: Path) -> None:
    (model / "generation_config.json").unlink()


def as_saved(model: Path) -> None:
    """Everything that a newcomer's folder may have at once."""
    nested(model)
    old_tokenizer(model)
    in_shards(model)
    (model / SINGLE).unlink()
    endless(model)
    trained_template(model)


READ: dict[str, Change] = {  # the layouts that are read, as transformers reads them
    "as it is": lambda model: None,
    "processor_config.json alone": nested,
    "processor_config.json first": nested_before,
    "max_pixels beside size": one(PICTURES, max_pixels=16384),
    "both bounds beside size": one(PICTURES, min_pixels=2048, max_pixels=16384),
    "bounds without size": one(PICTURES, drop=("size",), min_pixels=4096, max_pixels=65536),
    "min_pixels alone": one(PICTURES, drop=("size",), min_pixels=4096),
    "bilinear": both(resample=2),
    "Lanczos pictures": one(PICTURES, resample=1),
    "not normalised": both(do_normalize=False),
    "another scale": both(rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3),
    "not scaled": both(do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3),
    "a number of frames": one(VIDEOS, fps=None, num_frames=8),
    "every frame": one(VIDEOS, fps=None, max_frames=12),
    "few frames": one(VIDEOS, fps=1, min_frames=2, max_frames=6),
    "a cap for a frame": one(VIDEOS, cap_pixels_per_frame=True, max_video_tokens=9),
    "no video processor": lambda model: (model / VIDEOS).unlink(),
    "vocab.json and merges.txt": old_tokenizer,
    "a normaliser of its own": own_normaliser,
    "a single file and its index": in_shards,
    "a stale index": stale_index,
    "chat_template.json": legacy_template,
    "the tokenizer's template": tokenizers_template,
    "generation tags and special tokens": trained_template,
    "an adapter beside": adapter_beside,
    "all at once": as_saved,
}
REFUSED: dict[str, tuple[Change, str]] = {  # and those that are refused, by name
    "do_resize": (one(PICTURES, do_resize=False), r"preprocessor_config\.json: do_resize is False"),
    "do_convert_rgb": (one(VIDEOS, do_convert_rgb=False), r"video_preprocessor_config\.json: do_convert_rgb is False"),
    "do_sample_frames": (one(VIDEOS, do_sample_frames=False), "do_sample_frames is False"),
    "a video filter": (one(VIDEOS, resample=0), r"resample is 0, the device has 2 \(bilinear\), 3 \(bicubic\)"),
    "no filter": (one(PICTURES, resample=9), "resample is 9"),
    "two rates": (one(VIDEOS, num_frames=8), "fps is 2 and num_frames is 8"),
    "half a size": (one(PICTURES, size={"longest_edge": 9216}), "size has no key 'shortest_edge'"),
    "scales that differ": (one(VIDEOS, do_rescale=False), "the graph normalises both alike"),
    "no mean": (one(PICTURES, image_mean=None), "image_mean is None"),
    "weights that differ": (differing_shards, "transformers loads the single file"),
    "PEFT's names": (wrapped, r"named base_model\.model\.\*: PEFT saved them"),
    "an adapter alone": (adapter_alone, "an adapter alone .*of Base/Model.*--adapter"),
    "a quantised tower": (quantised_tower, "its vision tower too"),
}  # fmt: skip


def build(change: Change, folder: Path) -> Path:
    """A copy of the bundled model, changed."""
    model = Path(shutil.copytree(BUNDLED, folder, ignore=shutil.ignore_patterns("evaluation.json")))
    change(model)
    return model
