"""Peak memory and time of an export at a real tower's size: `python -m benchmarks.export_memory --size 2b`.

Writes a checkpoint of the real layout (tower of the real shape with random weights, bfloat16, sharded, beside a padded
shard that stands for the language model), exports it in a process of its own and reports that process's peak. The
physics: the original tower in float32 must be held once, and the language shard never. The last line is JSON.
"""

import argparse
import json
import math
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.encode import machine
from contract.manifest import PRECISIONS, read_manifest
from export.tower import Tower

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
SHAPES = {
    "2b": COMMON
    | {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "out_hidden_size": 2048,
        "deepstack_visual_indexes": [5, 11, 17],
    },
    "8b": COMMON
    | {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "out_hidden_size": 4096,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}
SHARD_BYTES = 400_000_000
FILLER_ROWS = 500_000  # of the language shard, 2 GB in bfloat16 at the narrowest width


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights that keep the variance of what passes through, and a large position table."""
    noise = torch.randn(shape, generator=generator)
    if name.startswith("pos_embed"):
        return 0.5 * noise
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 0.02 * noise if name.endswith("bias") else 1 + 0.1 * noise


def write_checkpoint(folder: Path, small: Path, size: str) -> int:
    """A tower of the real shape around the small files of `small`; returns the tower's bytes in float32."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"):
        shutil.copyfile(small / name, folder / name)
    config: dict[str, Any] = json.loads((small / "config.json").read_text())
    config["vision_config"] = SHAPES[size]
    config["text_config"]["hidden_size"] = SHAPES[size]["out_hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    generator, places, shard, total = torch.Generator().manual_seed(3), {}, {}, 0

    def flush() -> None:
        file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, shape in Tower.from_config(config).tensors():
        shard[f"model.visual.{name}"] = draw(name, shape, generator).bfloat16()
        total += 4 * math.prod(shape)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            flush()
    flush()
    filler = {"model.language_model.embed_tokens.weight": torch.zeros(FILLER_ROWS, 2048, dtype=torch.bfloat16)}
    shard.update(filler)
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory and time of an export at a real tower's size.")
    parser.add_argument("--size", choices=SHAPES, default="2b")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--small", type=Path, default=Path("models/tiny"), help="checkpoint whose small files are used")
    parser.add_argument(
        "--work", type=Path, help="where the checkpoint and the bundle are written for the time of the run"
    )
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        source, bundle = Path(place) / "model", Path(place) / "bundle"
        tower_bytes = write_checkpoint(source, args.small, args.size)
        print(f"checkpoint  {args.size} tower, {tower_bytes / 1e6:.0f} MB in float32", flush=True)
        command = [sys.executable, "-m", "export.vision", str(source), str(bundle), "--precision", args.precision]
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        usage, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
        print(done.stdout, end="", flush=True)
        if done.returncode:
            sys.exit(done.returncode)
        peak = usage.ru_maxrss * 1024
        result = {
            "benchmark": "export_memory",
            "tower": args.size,
            "precision": args.precision,
            "machine": machine(),
            "python": platform.python_version(),
            "libraries": read_manifest(bundle).libraries,
            "tower_fp32_mb": round(tower_bytes / 1e6),
            "peak_rss_mb": round(peak / 1e6),
            "peak_over_tower": round(peak / tower_bytes, 2),
            "seconds": round(seconds, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime, 1),
            "data_mb": round((bundle / "vision.onnx.data").stat().st_size / 1e6),
        }
        result |= {key: json.loads(done.stdout.splitlines()[-1])[key] for key in ("nodes", "parity")}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
