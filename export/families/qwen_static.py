"""The nodes of a Qwen vision tower for one picture size: everything that follows from the size is a constant.

The constants come out of the very nodes that the graph of every size computes them with (qwen_positions.py), so the
rule of positions and angles stands once.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.families.qwen_patches import NAME, still_weight
from export.families.qwen_positions import FramePositions
from export.graph.builder import Builder
from export.graph.tower import Tower
from export.static.frame import MAIN, Frame, level_output
from export.static.grid import Grid
from export.static.layers import StaticLayers

OUTSIDE = -1e4  # added to the score of a row in another window: its weight is 0, and fp16 holds the number


def write_static(graph: Builder, layers: StaticLayers, tower: Tower, grid: Grid, patches: str) -> tuple[str, list[str]]:
    """The tower over one frame; see export.families.Family."""
    found = frame_constants(layers, tower, grid)
    angles = {name: graph.constant(name, found[name][None, None]) for name in ("cosines", "sines")}
    frame = Frame(grid.num_patches, angles["cosines"], angles["sines"])
    rows = layers.product(
        patches, NAME, lambda: still_weight(layers.read, tower), lambda: layers.read(f"{NAME}.bias")
    )  # (1, patches, hidden)
    if "positions" in found:
        rows = graph.op("Add", [rows, graph.constant("positions", found["positions"][None])])
    mask = None
    if tower.window:
        mask = graph.constant("windows", _mask(found["row"] // tower.window, found["col"] // tower.window))
    levels: list[str] = []
    for number in range(tower.depth):
        rows = layers.block(rows, number, frame, None if number in tower.full_blocks else mask)
        for merger in (merger for tap, merger in tower.levels if tap == number):
            name, output = f"deepstack_merger_list.{merger}", level_output(len(levels))
            levels.append(_merger(graph, layers, tower, grid, rows, name, output, is_norm_after=True))
    return _merger(graph, layers, tower, grid, rows, "merger", MAIN, is_norm_after=False), levels


def frame_constants(layers: StaticLayers, tower: Tower, grid: Grid) -> dict[str, NDArray[np.float32]]:
    """cosines and sines (patches, head_dim / 2), row and col (patches,), and positions (patches, hidden) where the
    tower has a table, all float32."""
    graph = Builder()
    sizes = (graph.ints(size) for size in (grid.height, grid.width, grid.num_patches))
    frame = FramePositions(graph, tower, *sizes)
    cosines, sines = frame.rotary()
    names = {"cosines": cosines, "sines": sines}
    if tower.table_side:
        table = graph.weight("pos_embed.weight", lambda: layers.read("pos_embed.weight"))
        names["positions"] = frame.embeddings(table)
    for name in ("row", "col"):
        names[name] = graph.op("Cast", [name], to=TensorProto.FLOAT)
    for name, value in names.items():
        graph.op("Identity", [value], f"{name}_out")
    outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "positions.onnx"
        graph.save(path, [], outputs)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(None, {}), strict=True))


def _mask(rows: NDArray[np.float32], cols: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (1, 1, patches, patches): 0 where two patches lie in one window, else OUTSIDE."""
    rows, cols = np.floor(rows), np.floor(cols)
    is_same = (rows[:, None] == rows) & (cols[:, None] == cols)
    return np.where(is_same, 0, OUTSIDE).astype(np.float32)[None, None]


def _merger(
    graph: Builder,
    layers: StaticLayers,
    tower: Tower,
    grid: Grid,
    rows: str,
    name: str,
    output: str,
    *,
    is_norm_after: bool,
) -> str:
    """(1, patches, hidden) to (1, patches / merge_size^2, out_hidden). It has an exact gelu, unlike the blocks."""
    merged = graph.ints(1, grid.num_patches // tower.merge_size**2, tower.merged_size)
    if is_norm_after:  # the deepstack levels merge patches before the norm
        rows = layers.norm(graph.op("Reshape", [rows, merged]), f"{name}.norm")
    else:  # the main output
        rows = graph.op("Reshape", [layers.norm(rows, f"{name}.norm"), merged])
    rows = layers.activation(layers.linear(rows, f"{name}.linear_fc1"), "gelu")
    return layers.linear(rows, f"{name}.linear_fc2", output)
