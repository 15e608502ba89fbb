"""`python -m benchmarks.export_speed`: our graph against transformers' own ONNX export of the same tower, in turns.

transformers' exporter wants positions and segment lengths as inputs and is right for one picture a call, so the
benchmark compares that, and computes those inputs outside its time. Weights are random, of the 2B shape with some
layers. The ceiling is what one fp32 matrix product reaches here with as many threads. The ratio is of processor time,
so that other work on the machine counts less; who begins changes from round to round. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
from transformers.vision_utils import (
    get_vision_attention_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from benchmarks.encode import matrix_peak
from benchmarks.machine import machine
from benchmarks.random_checkpoint import SHAPES, draw
from benchmarks.result import add_out, finish
from contract.preprocessing import ImageProcessing
from edge_runtime.items.patches import normalised
from export import families
from export.gate.oracle import Oracle
from export.gate.packs import flop, pixels
from export.graph.loop import write_graph
from export.graph.tower import Tower

GRIDS = ((1, 16, 16), (1, 32, 32))
HALF = ImageProcessing(1024, 1 << 20, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def num_nodes(path: Path) -> int:
    """Nodes of a file, those of its loop's body included."""
    graph = onnx.load(path, load_external_data=False).graph
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return sum(len(part.node) for part in (graph, *bodies))


def stock_inputs(tower: Any, values: np.ndarray, grid: np.ndarray) -> dict[str, torch.Tensor]:
    """What transformers' export takes, from patches uint8 (num_patches, width) and a grid (1, 3)."""
    grid_thw, merge = torch.from_numpy(grid), tower.config.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid_thw,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    lengths, _ = get_vision_attention_seqlens(grid_thw, tower.config)
    return {
        "hidden_states": torch.from_numpy(normalised(values, HALF.mean, HALF.std)),
        "grid_thw": grid_thw,
        "interp_indices": indices,
        "interp_weights": weights,
        "position_ids": get_vision_position_ids(grid_thw, merge),
        "cu_seqlens": lengths,
    }


def timed(calls: Sequence[Callable[[], object]], *, is_reversed: bool) -> list[tuple[float, float]]:
    """Wall and processor seconds of each call, in the order of `calls`, run the other way round if reversed."""
    found = []
    for call in calls[::-1] if is_reversed else calls:
        began, cpu = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - began, time.process_time() - cpu))
    return found[::-1] if is_reversed else found


def written(config: dict[str, Any], folder: Path) -> tuple[Oracle, Tower, list[Path]]:
    """The original with random weights, and both graphs of it: ours, then the one that transformers exports."""
    tower, generator = families.tower(config), torch.Generator().manual_seed(3)
    weights = {name: draw(f"model.visual.{name}", shape, generator).numpy() for name, shape in tower.shapes.items()}
    original = Oracle(config, HALF, list(weights), weights.__getitem__)
    ours, stock = folder / "vision.onnx", folder / "stock" / "model.onnx"
    write_graph(families.find(config["model_type"]), tower, weights.__getitem__, HALF, ours)
    values = pixels(tower, (GRIDS[0],), 0)
    sample = stock_inputs(original._tower, values, np.array([GRIDS[0]]))
    exported = OnnxExporter().export(original._tower, sample, config=OnnxConfig(dynamic=True, ort_fusions="cpu"))
    stock.parent.mkdir()
    OnnxExporter.save_program(exported.program, stock)
    return original, tower, [ours, stock]


def opened(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


def row(
    grid: tuple[int, int, int], original: Oracle, tower: Tower, sessions: Sequence[Any], rounds: int, peak: float
) -> dict[str, Any]:
    """Times of both graphs on one grid, and how far the second's rows lie from the original's."""
    names = {value.name for value in sessions[1].get_inputs()}
    values, grids = pixels(tower, (grid,), 1), np.array([grid])
    given = stock_inputs(original._tower, values, grids)
    feeds = [
        {"patches": values, "grid_thw": grids},
        {name: tensor.numpy() for name, tensor in given.items() if name in names},
    ]
    expected = original(values, grids)["image_embeds"]
    found = [session.run(None, feed) for session, feed in zip(sessions, feeds, strict=True)]
    error = min(float(np.abs(part - expected).max()) for part in found[1] if part.shape == expected.shape)
    calls = [lambda s=s, f=f: s.run(None, f) for s, f in zip(sessions, feeds, strict=True)]
    pairs = [timed(calls, is_reversed=bool(number % 2)) for number in range(rounds)]
    wall, cpu = ([statistics.median(pair[side][kind] for pair in pairs) for side in (0, 1)] for kind in (0, 1))
    return {
        "grid": "x".join(map(str, grid)),
        "written_ms": round(wall[0] * 1e3, 1),
        "stock_ms": round(wall[1] * 1e3, 1),
        "written_cpu_ms": round(cpu[0] * 1e3, 1),
        "stock_cpu_ms": round(cpu[1] * 1e3, 1),
        "speedup": round(statistics.median(b[1] / a[1] for a, b in pairs), 3),
        "speedup_of_best": round(min(b[1] for _, b in pairs) / min(a[1] for a, _ in pairs), 3),
        "share_of_peak": round(flop(tower, (grid,)) / wall[0] / peak, 3),
        "stock_max_abs_error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The written graph against transformers' own ONNX export.")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    add_out(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vision = SHAPES["2b"] | {"depth": args.layers, "deepstack_visual_indexes": [1, 2, args.layers - 1]}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        original, tower, paths = written({"model_type": "qwen3_vl", "vision_config": vision}, Path(folder))
        sessions = [opened(path, args.threads) for path in paths]
        peak = matrix_peak(args.threads)
        for grid in GRIDS:
            rows.append(row(grid, original, tower, sessions, args.rounds, peak))
            print(json.dumps(rows[-1]), flush=True)
        nodes = dict(zip(("written", "stock"), map(num_nodes, paths), strict=True))
    versions = {m.__name__: m.__version__ for m in (onnxruntime, torch, transformers)}
    asked = {"layers": args.layers, "threads": args.threads, "rounds": args.rounds}
    facts = {"machine": machine(), "versions": versions, "nodes": nodes}
    finish({"benchmark": "export_speed", **asked, **facts, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
