"""`make bench`: the tower on onnxruntime against transformers' own, in turns in one process.

The ceiling is what one fp32 matrix product of the tower's own shape reaches on this machine with the same threads.
Figures are medians; the last line is JSON.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers
from onnx import TensorProto, helper

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime import Encoder
from edge_runtime.items.item import Item
from edge_runtime.items.patches import normalised

GRIDS = ((1, 6, 8), (1, 10, 10), (1, 16, 16), (1, 32, 32), (4, 10, 10))


def flop(config: transformers.PreTrainedConfig, grid: tuple[int, int, int]) -> float:
    """Multiply-adds of one item, times two: patch embedding, blocks with attention, mergers."""
    t, h, w = grid
    patches, width, merged = t * h * w, config.hidden_size, config.hidden_size * config.spatial_merge_size**2
    block = 4 * width**2 + 2 * width * config.intermediate_size + 2 * h * w * width
    merger = (merged**2 + merged * config.out_hidden_size) / config.spatial_merge_size**2
    pixels = 3 * config.temporal_patch_size * config.patch_size**2
    levels = 1 + len(config.deepstack_visual_indexes)
    return float(2 * patches) * float(pixels * width + config.depth * block + levels * merger)


def matrix_peak(threads: int, size: int = 1024) -> float:
    """FLOP/s of onnxruntime's fp32 matrix product, the best of several."""
    shape = [size, size]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "peak", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {name: np.random.default_rng(0).normal(size=shape).astype(np.float32) for name in "ab"}
    return 2 * size**3 / min(seconds(lambda: session.run(None, feed)) for _ in range(12))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(model: Path, threads: int, rounds: int) -> list[dict[str, object]]:
    """One row a grid: medians of both sides, their ratio, and the share of the ceiling."""
    torch.set_num_threads(threads)
    tower = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).model.visual.eval()
    with tempfile.TemporaryDirectory() as folder:
        export: list[str | Path] = [sys.executable, "-m", "export.vision", model, f"{folder}/bundle"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        encoder = Encoder.from_bundle(f"{folder}/bundle", threads=threads)
        manifest, peak, rows = encoder.bundle.manifest, matrix_peak(threads), []
        width, image = manifest.card.patch_width, manifest.image
        for grid in GRIDS:
            shape = (int(np.prod(grid)), 3, 1 if grid[0] == 1 else 2, width // 6)  # a still's slices are equal
            patches = np.random.default_rng(1).integers(0, 256, shape, np.uint8).repeat(2 // shape[2], axis=2)
            patches = patches.reshape(len(patches), width)
            item, sizes = Item(patches, grid), torch.tensor([grid])
            tensor = torch.from_numpy(normalised(patches, image.mean, image.std))

            def ours(item: Item = item) -> object:
                return encoder.encode([item])

            def theirs(tensor: torch.Tensor = tensor, sizes: torch.Tensor = sizes) -> object:
                with torch.inference_mode():
                    return tower(tensor, grid_thw=sizes)

            for warm in (ours, theirs, ours, theirs):
                warm()
            pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
            edge, torch_eager = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for a, b in pairs)
            rows.append(
                {
                    "grid": "x".join(map(str, grid)),
                    "edge_ms": round(edge * 1e3, 3),
                    "transformers_ms": round(torch_eager * 1e3, 3),
                    "speedup": round(ratio, 2),
                    "share_of_peak": round(flop(tower.config, grid) / edge / peak, 3),
                }
            )
            print(
                "{grid:>9}  edge {edge_ms:>9} ms  transformers {transformers_ms:>9} ms  x {speedup:<6} peak {share_of_peak}".format(
                    **rows[-1]
                ),
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the exported tower against transformers.")
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    add_out(parser)
    args = parser.parse_args()
    result = {
        "benchmark": "encode",
        "model": args.model.name,
        "threads": args.threads,
        "machine": machine(),
        "versions": {m.__name__: m.__version__ for m in (onnxruntime, torch, transformers)},
        "rows": measure(args.model, args.threads, args.rounds),
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
