"""`python -m benchmarks.tile_towers`: towers of tile families on this CPU, ours against other engines, in turns.

CLIP L/14-336 (LLaVA-1.5's tower and connector, one tile and five) and InternViT-300M (InternVL's, thirteen tiles), with
random weights. `make bench-edge` runs it after the tower of Qwen3-VL, in the environment of the peers. Every engine
answers the same tiles; the cosine is against transformers in float32, and a peer counts where its mean is at least 0.999.
Our graphs are those that the export writes, before its gate: the cosine stands in the gate's place. The order of the
engines changes from round to round. The last line is JSON.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray

import tests.processor  # noqa: F401  declares torchvision's operators before transformers is imported
from benchmarks.edge.peaks import peaks
from benchmarks.edge.summary import MIN_COSINE
from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from edge_runtime.items.patches import normalised
from edge_runtime.tower.session_options import session_options
from export import families
from export.gate.packs import flop, pixels
from export.graph.loop import write_graph
from export.integers.rotation import Rotation
from export.plan import HALF
from export.precision import precision_named
from export.source.checkpoint import Checkpoint
from tests.families import models

Rows = NDArray[np.float32]
Engine = Callable[[int], Rows]  # a number of tiles to their rows (N, H)
WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
DEPTH = 24
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
OPERANDS = {"fp32": "fp32", "fp16": "fp32", "bf16": "bf16", "int8": "int8"}
REFERENCE, OURS = "transformers fp32", "ours int8"


@dataclass(frozen=True)
class Case:
    """A tower of the benchmark: its family, the pixels of a tile's side, and how many tiles one call takes."""

    family: str
    side: int
    counts: tuple[int, ...]


CASES = {"CLIP L/14-336": Case("llava", 336, (1, 5)), "InternViT-300M": Case("internvl", 448, (13,))}


class Tower(torch.nn.Module):
    """transformers' tower and connector: tiles (n, 3, side, side) to rows (N, H)."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole.model
        self.eval()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = self.whole.get_image_features(pixel_values=pixel_values).pooler_output
        rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        return rows.reshape(-1, rows.shape[-1])


class Tiles:
    """The tiles of one tower, as patches for our encoder and as pixels for the others."""

    def __init__(self, checkpoint: Path, case: Case) -> None:
        self.source = source = Checkpoint(checkpoint)
        self.tower = families.tower(source.config)
        side = self.tower.fixed_side or 0
        self.grids = {count: (count, side, side) for count in case.counts}
        self.patches = {count: pixels(self.tower, (grid,), 1) for count, grid in self.grids.items()}
        self.pixels = {count: self._pixels(count) for count in case.counts}

    def _pixels(self, count: int) -> Rows:
        """Normalised tiles, float32 (count, 3, side, side)."""
        values = normalised(self.patches[count], self.source.image.mean, self.source.image.std)
        side, merge, patch = self.grids[count][1], self.tower.merge_size, self.tower.patch_size
        blocks = values.reshape(count, side // merge, side // merge, merge, merge, 3, patch, patch)
        whole = blocks.transpose(0, 5, 1, 3, 6, 2, 4, 7)  # (count, 3, rows of blocks, in block, in patch, columns ...)
        return np.ascontiguousarray(whole.reshape(count, 3, side * patch, side * patch))

    def tflop(self, count: int) -> float:
        return flop(self.tower, (self.grids[count],)) / 1e12


def engines(folder: Path, case: Case, depth: int, threads: int) -> tuple[Tiles, dict[str, Engine]]:
    """The tiles, and the engines by name; files stay in the folder."""
    import transformers

    model = folder / "model"
    if not model.is_dir():
        shape = WIDE | {"image_size": case.side, "num_hidden_layers": depth}
        models.write(case.family, model, **shape)
    tiles = Tiles(model, case)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    found = dict[str, Engine]()
    found[REFERENCE] = _torch(whole, tiles, torch.float32)
    stock = folder / "stock.onnx"
    if not stock.is_file():
        _export_stock(Tower(whole), tiles, case, stock)
    found["onnxruntime stock"] = _onnxruntime(stock, tiles, threads)
    for precision in HINTS:
        found[f"OpenVINO {precision}"] = _openvino(stock, tiles, case, precision, threads)
    half = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.bfloat16).eval()
    found["transformers bf16"] = _torch(half, tiles, torch.bfloat16)
    for precision in PRECISIONS:
        found[f"ours {precision}"] = _ours(folder / f"ours-{precision}.onnx", tiles, precision, threads)
    return tiles, found


def _torch(whole: Any, tiles: Tiles, dtype: torch.dtype) -> Engine:
    tower = Tower(whole)

    def run(count: int) -> Rows:
        with torch.inference_mode():
            rows: Rows = tower(torch.from_numpy(tiles.pixels[count]).to(dtype)).float().numpy()
        return rows

    return run


def _export_stock(tower: Tower, tiles: Tiles, case: Case, path: Path) -> None:
    sample = torch.from_numpy(tiles.pixels[case.counts[-1]])
    with torch.inference_mode():
        program = torch.onnx.export(
            tower, (sample,), dynamo=True, input_names=["pixel_values"],
            dynamic_shapes=({0: torch.export.Dim("tiles", min=1)},),
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=True)


def _onnxruntime(path: Path, tiles: Tiles, threads: int) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the others would wait for its threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda count: session.run(None, {name: tiles.pixels[count]})[0]


def _openvino(stock: Path, tiles: Tiles, case: Case, precision: str, threads: int) -> Engine:
    path = stock.with_name(f"openvino-{'int8' if precision == 'int8' else 'fp32'}.xml")
    if not path.is_file():
        model = openvino.convert_model(stock)
        if precision == "int8":
            import nncf

            samples = nncf.Dataset([[tiles.pixels[case.counts[-1]][:5]]])
            model = nncf.quantize(
                model, samples, preset=nncf.QuantizationPreset.MIXED, model_type=nncf.ModelType.TRANSFORMER, subset_size=1
            )  # fmt: skip
        openvino.save_model(model, path, compress_to_fp16=precision != "int8")
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
    return lambda count: np.array(request.infer([tiles.pixels[count]], share_inputs=True)[0])


def _ours(path: Path, tiles: Tiles, precision: str, threads: int) -> Engine:
    """The graph as export.vision writes it, on this processor's kernels."""
    chosen, tower, source = precision_named(precision), tiles.tower, tiles.source
    if not path.is_file():
        plain = tower.reader(source.tower_tensor)
        read = Rotation(tower, plain) if chosen.is_integer and Rotation.fits(tower) else plain
        half = HALF if chosen.is_integer else ()
        write_graph(source.family, tower, read, source.image, path, chosen.linear, {}, half)
    session = onnxruntime.InferenceSession(path, session_options(threads, use_kernels=True))

    def run(count: int) -> Rows:
        feeds = {"patches": tiles.patches[count], "grid_thw": np.array([tiles.grids[count]], np.int64)}
        rows: Rows = session.run(["image_embeds"], feeds)[0]
        return rows

    return run


def cosine(found: Rows, expected: Rows) -> dict[str, float]:
    pairs = found.astype(np.float64), expected.astype(np.float64)
    of_rows = (pairs[0] * pairs[1]).sum(1) / np.linalg.norm(pairs[0], axis=1) / np.linalg.norm(pairs[1], axis=1)
    return {"mean": round(float(of_rows.mean()), 6), "lowest": round(float(of_rows.min()), 6)}


def measure(found: Mapping[str, Engine], count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """By engine: cosine against REFERENCE, and the median ms of the rounds; one call warms up."""
    expected = found[REFERENCE](count)
    rows: dict[str, dict[str, Any]] = {name: {"cosine": cosine(run(count), expected)} for name, run in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    names = list(found)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            found[name](count)
            times[name].append(time.perf_counter() - started)
    for name, seconds in times.items():
        rows[name]["wall_ms"] = round(1e3 * statistics.median(seconds), 1)
    return rows


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The best peer of at least MIN_COSINE, how many times faster int8 is, and fp32 beside OpenVINO's."""
    peers = [name for name in rows if not name.startswith("ours") and rows[name]["cosine"]["mean"] >= MIN_COSINE]
    best = min(peers, key=lambda name: rows[name]["wall_ms"])
    return {
        "best_peer": best,
        "int8_vs_best_peer": round(rows[best]["wall_ms"] / rows[OURS]["wall_ms"], 2),
        "fp32_vs_openvino_fp32": round(rows["OpenVINO fp32"]["wall_ms"] / rows["ours fp32"]["wall_ms"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Towers of tile families against other engines on this CPU.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--depth", type=int, default=DEPTH, help="layers of the towers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path(".cache/tile-towers"))
    add_out(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    limits, towers = peaks(args.threads), dict[str, Any]()
    for name in args.cases:
        case = CASES[name]
        folder = args.cache / f"{case.family}-{args.depth}"
        folder.mkdir(parents=True, exist_ok=True)
        tiles, found = engines(folder, case, args.depth, args.threads)
        for count in case.counts:
            rows = measure(found, count, args.rounds)
            for engine, row in rows.items():
                gflops = 1e6 * tiles.tflop(count) / row["wall_ms"]
                operand = OPERANDS.get(engine.split()[-1], "fp32")
                row |= {"gflops": round(gflops, 1), "share_of_peak": round(gflops / limits[operand], 3)}
                print(f"{name}, {count} tiles  {engine:20} {row}", flush=True)
            towers[f"{name}, {count} tiles"] = {
                "tflop": round(tiles.tflop(count), 4), "engines": rows, "summary": summary(rows),
            }  # fmt: skip
    result = {
        "benchmark": "tile_towers",
        "machine": machine(),
        "threads": args.threads,
        "depth": args.depth,
        "versions": {name: version(name) for name in ("onnxruntime", "openvino", "nncf", "torch", "transformers")},
        "load_average": round(os.getloadavg()[0], 2),
        "peaks_gflops": {name: round(value, 1) for name, value in limits.items() if name != "memory"},
        "towers": towers,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()
