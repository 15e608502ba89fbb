"""`python -m benchmarks.random_checkpoint`: a checkpoint of the real layout and tower shape with random weights.

Not every machine can fetch real weights, and what an export costs depends on shapes and files alone. The tower is
bfloat16, in one file or in shards; the language model beside it is one tensor of any size that takes no disk, because
the file has a hole there. The small files come from a checkpoint that exists.
"""

import argparse
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import torch

from export import families

COMMON = {
    "model_type": "qwen3_vl_vision",
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "num_heads": 16,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
}
SMALL = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
LARGE = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
SHAPES: dict[str, dict[str, Any]] = {
    "2b": COMMON | SMALL | {"out_hidden_size": 2048},
    "4b": COMMON | SMALL | {"out_hidden_size": 2560},
    "8b": COMMON | LARGE | {"out_hidden_size": 4096},
    "30b-a3b": COMMON | LARGE | {"out_hidden_size": 2048},
}
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
SHARD_BYTES = 400_000_000
LANGUAGE = "model.language_model.embed_tokens.weight"

Shapes = dict[str, tuple[int, ...]]


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights that keep the variance of what passes through, and a large position table."""
    noise = torch.randn(shape, generator=generator)
    if name.startswith("model.visual.pos_embed"):
        return 0.5 * noise
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 0.02 * noise if name.endswith("bias") else 1 + 0.1 * noise


def write_file(path: Path, shapes: Shapes, generator: torch.Generator) -> None:
    """One safetensors file in bfloat16; the language tensor, which must come last, is a hole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if name != LANGUAGE:
                file.write(draw(name, shape, generator).bfloat16().view(torch.uint8).numpy().data)
        file.truncate(8 + len(text) + end)


def write_checkpoint(folder: Path, small: Path, size: str, *, is_single: bool = False, language_bytes: int = 0) -> int:
    """A tower of the real shape around the small files of `small`; returns the tower's bytes in float32."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(small / name, folder / name)
    config: dict[str, Any] = json.loads((small / "config.json").read_text())
    config["vision_config"] = SHAPES[size]
    width = int(config["vision_config"]["out_hidden_size"])
    config["text_config"]["hidden_size"] = width
    (folder / "config.json").write_text(json.dumps(config))
    generator, shards, tower = torch.Generator().manual_seed(3), [Shapes()], families.tower(config).shapes
    for name, shape in tower.items():
        shards[-1][f"model.visual.{name}"] = shape
        if not is_single and sum(2 * math.prod(shape) for shape in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
    if not is_single and shards[-1]:
        shards.append({})
    shards[-1][LANGUAGE] = (max(1, language_bytes // (2 * width)), width)
    places: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        file = "model.safetensors" if is_single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, shapes, generator)
        places |= dict.fromkeys(shapes, file)
    if not is_single:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sum(4 * math.prod(shape) for shape in tower.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="A checkpoint of the real layout with random weights.")
    parser.add_argument("folder", type=Path, help="where it is written")
    parser.add_argument("--size", choices=SHAPES, default="2b")
    parser.add_argument("--single", action="store_true", help="one file instead of shards")
    parser.add_argument("--language-gb", type=float, default=4.0, help="size of the language tensor, a hole on disk")
    parser.add_argument("--small", type=Path, default=Path("models/tiny"), help="checkpoint whose small files are used")
    args = parser.parse_args()
    language_bytes = int(args.language_gb * 1e9)
    num_bytes = write_checkpoint(
        args.folder, args.small, args.size, is_single=args.single, language_bytes=language_bytes
    )
    print(f"{args.folder}: {args.size} tower, {num_bytes / 1e6:.0f} MB in float32")


if __name__ == "__main__":
    main()
