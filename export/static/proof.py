"""Holds a static graph against the original tower, and an accelerator's answers against the graph in float32.

The centred cosine decides about accelerators: where a few channels are loud in every row, the plain one is 1 whatever
becomes of the others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from edge_runtime.tower.session_options import session_options
from edge_runtime.tower.still import still_rows
from export.gate.bounds import Gate
from export.gate.oracle import Outputs, level_name
from export.gate.parity import Row, compare
from export.graph.tower import Tower
from export.static.frame import MAIN, level_output
from export.static.graph import INPUT
from export.static.grid import Grid

# Rounding to 8 bits keeps less of single rows than of their mean; the bounds are those of docs/accelerators.md.
GATES = {
    "fp32": Gate(0.999999, 0.999999, 1e-4),
    "fp16": Gate(-1.0, 0.999, is_centred=True),
    "a16w8": Gate(0.97, 0.985, is_centred=True),
    "int8": Gate(0.97, 0.985, is_centred=True),
}


def output_names(tower: Tower) -> list[str]:
    """The graph's outputs in order."""
    return [MAIN, *map(level_output, range(len(tower.taps)))]


def static_answers(path: Path, patches: Sequence[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
    """What the graph gives on this machine's CPU: its outputs (1, rows, H) for each picture's patches."""
    session = onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    return [session.run(None, {INPUT: still_rows(one)}) for one in patches]


def against_original(
    tower: Tower, grid: Grid, expected: Sequence[Outputs], got: Sequence[Sequence[NDArray[np.float32]]]
) -> list[Row]:
    """One row for each output and picture; `expected` are the original's answers."""
    names = ["image_embeds", *map(level_name, range(len(tower.taps)))]
    return [
        compare(f"static {grid}", name, outputs[name], rows[0])
        for outputs, arrays in zip(expected, got, strict=True)
        for name, rows in zip(names, arrays, strict=True)
    ]


def against_float(
    label: str, expected: Sequence[Sequence[NDArray[np.float32]]], got: Sequence[Sequence[NDArray[np.float32]]]
) -> list[Row]:
    """One row for each output over the token rows of all pictures together; both are lists of outputs (1, rows, H)."""
    joined = [
        [np.concatenate([picture[place][0] for picture in side]) for place in range(len(expected[0]))]
        for side in (expected, got)
    ]
    names = [MAIN, *map(level_output, range(len(expected[0]) - 1))]
    return [compare(label, name, *pair) for name, pair in zip(names, zip(*joined, strict=True), strict=True)]


def largest_residual(path: Path, tower: Tower, patches: Sequence[NDArray[np.uint8]]) -> float:
    """The largest magnitude between two blocks of the tower: fp16 loses the small channels beside one above 1e3."""
    model = onnx.load(path, load_external_data=False)
    names = [f"blocks.{number}" for number in range(tower.depth)]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = session_options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return max(float(np.abs(rows).max()) for one in patches for rows in session.run(names, {INPUT: still_rows(one)}))
