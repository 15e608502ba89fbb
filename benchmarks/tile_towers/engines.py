"""The engines of the benchmark: transformers, onnxruntime, OpenVINO, and our graphs on our kernels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch

from benchmarks.tile_towers.tiles import Case, Rows, Tiles
from edge_runtime.tower.session_options import session_options
from export.graph.loop import write_graph
from export.integers.rotation import Rotation
from export.plan import HALF
from export.precision import precision_named
from tests.families import models

Engine = Callable[[int], Rows]  # a number of tiles to their rows (N, H)
WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
REFERENCE, HALF_TORCH, STOCK = "transformers fp32", "transformers bf16", "onnxruntime stock"
NAMES = (
    REFERENCE,
    STOCK,
    *(f"OpenVINO {name}" for name in HINTS),
    HALF_TORCH,
    *(f"ours {name}" for name in PRECISIONS),
)


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


def engines(
    folder: Path, case: Case, depth: int, threads: int, names: Sequence[str]
) -> tuple[Tiles, dict[str, Engine]]:
    """The tiles, and the engines by name, REFERENCE among them; files stay in the folder."""
    import transformers

    model = folder / "model"
    if not model.is_dir():
        shape = WIDE | {"image_size": case.side, "num_hidden_layers": depth}
        models.write(case.family, model, **shape)
    tiles = Tiles(model, case)

    def whole(dtype: torch.dtype) -> Any:
        return transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=dtype).eval()

    reference = whole(torch.float32)
    found = {REFERENCE: _torch(reference, tiles, torch.float32)}
    stock = {count: _stock(Tower(reference), tiles, count, folder) for count in case.counts}
    for name in names:
        kind, _, precision = name.partition(" ")
        if name == STOCK:
            found[name] = _onnxruntime(stock, tiles, threads)
        elif kind == "OpenVINO":
            found[name] = _openvino(stock, tiles, precision, threads)
        elif name == HALF_TORCH:
            found[name] = _torch(whole(torch.bfloat16), tiles, torch.bfloat16)
        elif kind == "ours":
            found[name] = _ours(folder / f"ours-{precision}.onnx", tiles, precision, threads)
    return tiles, found


def _torch(whole: Any, tiles: Tiles, dtype: torch.dtype) -> Engine:
    tower = Tower(whole)

    def run(count: int) -> Rows:
        with torch.inference_mode():
            rows: Rows = tower(torch.from_numpy(tiles.pixels[count]).to(dtype)).float().numpy()
        return rows

    return run


def _stock(tower: Tower, tiles: Tiles, count: int, folder: Path) -> Path:
    """torch's own export of the tower. transformers' code splits the rows by picture, so a graph takes one number of tiles."""
    path = folder / f"stock-{count}.onnx"
    if not path.is_file():
        with torch.inference_mode():
            sample = torch.from_numpy(tiles.pixels[count])
            program = torch.onnx.export(tower, (sample,), dynamo=True, input_names=["pixel_values"])
        assert program is not None
        program.save(str(path), external_data=True)
    return path


def _onnxruntime(stock: dict[int, Path], tiles: Tiles, threads: int) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the others would wait for its threads
    sessions = {
        count: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for count, path in stock.items()
    }
    return lambda count: sessions[count].run(None, {"pixel_values": tiles.pixels[count]})[0]


def _openvino(stock: dict[int, Path], tiles: Tiles, precision: str, threads: int) -> Engine:
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    core, requests = openvino.Core(), dict[int, openvino.InferRequest]()
    for count, path in stock.items():
        model = _openvino_model(path, tiles.pixels[count], precision)
        requests[count] = core.compile_model(model, "CPU", hints).create_infer_request()
    return lambda count: np.array(requests[count].infer([tiles.pixels[count]], share_inputs=True)[0])


def _openvino_model(stock: Path, pixels: Rows, precision: str) -> Path:
    """OpenVINO's file of a stock graph: fp16 weights as its own exporter writes them, or int8 by NNCF."""
    path = stock.with_name(f"openvino-{stock.stem}-{'int8' if precision == 'int8' else 'fp32'}.xml")
    if not path.is_file():
        model = openvino.convert_model(stock)
        if precision == "int8":
            import nncf

            model = nncf.quantize(
                model, nncf.Dataset([[pixels]]), preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER, subset_size=1,
            )  # fmt: skip
        openvino.save_model(model, path, compress_to_fp16=precision != "int8")
    return path


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
