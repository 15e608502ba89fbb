"""How much this processor can do at best, and how much work a tower needs: the two sides of `bench`.

The ceiling is the rate that onnxruntime's own matrix product reaches here, in float32 and in 8-bit integers, on a shape
of the towers. This module counts the work in onnxruntime's profile of one run, so it holds for every bundle and
precision.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_runtime.tower.session import CPU
from edge_runtime.tower.session_options import session_options

PRODUCTS = {"MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"}  # fmt: skip
ROWS, DEPTH, COLUMNS = 1024, 1024, 4096  # patches of 512 x 512 pixels times a layer of the 2B tower
FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6  # onnx.TensorProto.DataType


def _field(number: int, value: int | str | bytes | list[bytes]) -> bytes:
    """A field of a protobuf message: a number, text, bytes, or a message of fields."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else b"".join(value)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def product_model(operator: str, left: int, weight: NDArray[Any], right: int, result: int) -> bytes:
    """The bytes of an ONNX model of one product (rows, K) x weight (K, N); onnx.proto has the numbers of the types."""

    def value(name: str, kind: int, shape: tuple[int, ...]) -> list[bytes]:
        sides = [_field(1, [_field(1, side)]) for side in shape]
        return [_field(1, name), _field(2, [_field(1, [_field(1, kind), _field(2, sides)])])]

    depth, columns = weight.shape
    tensor = [_field(1, depth), _field(1, columns), _field(2, right), _field(8, "b"), _field(9, weight.tobytes())]
    node = [_field(1, "a"), _field(1, "b"), _field(2, "c"), _field(4, operator)]
    ends = _field(11, value("a", left, (ROWS, depth))) + _field(12, value("c", result, (ROWS, columns)))
    graph = [_field(1, node), _field(2, "product"), _field(5, tensor), ends]
    return _field(1, 10) + _field(7, graph) + _field(8, [_field(1, ""), _field(2, 20)])


def _rate(operator: str, left: NDArray[Any], weight: NDArray[Any], kinds: tuple[int, int, int], threads: int) -> float:
    options = session_options(threads)
    model = product_model(operator, kinds[0], weight, kinds[1], kinds[2])
    session = onnxruntime.InferenceSession(model, options, providers=[CPU])
    best = math.inf
    for _ in range(8):
        started = time.perf_counter()
        session.run(None, {"a": left})
        best = min(best, time.perf_counter() - started)
    return 2.0 * ROWS * DEPTH * COLUMNS / best


def peak_rates(threads: int) -> tuple[float, float]:
    """The operations per second of onnxruntime's matrix product: float32, and unsigned by signed 8-bit integers."""
    random = np.random.default_rng(0)
    floats = [random.normal(size=shape).astype(np.float32) for shape in ((ROWS, DEPTH), (DEPTH, COLUMNS))]
    activations = random.integers(0, 256, (ROWS, DEPTH), np.uint8)
    weights = random.integers(-127, 128, (DEPTH, COLUMNS), np.int8)
    return (
        _rate("MatMul", floats[0], floats[1], (FLOAT, FLOAT, FLOAT), threads),
        _rate("MatMulInteger", activations, weights, (UINT8, INT8, INT32), threads),
    )


def count_work(graph: Path, grid: tuple[int, int, int], patch_width: int) -> tuple[float, float]:
    """How many operations the matrix products with weights take, and attention, for one item of this grid in patches.

    This call loads the graph a second time, without the project's fast operators, so that it sees what they replace.
    """
    options = session_options()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/run"
        session = onnxruntime.InferenceSession(str(graph), options, providers=[CPU])
        patches = np.zeros((math.prod(grid), patch_width), np.uint8)
        session.run(None, {"patches": patches, "grid_thw": np.array([grid], np.int64)})
        events = json.loads(Path(session.end_profiling()).read_text())
    products = attention = 0.0
    for event in events:
        told = event.get("args", {})
        if not event["name"].endswith("_kernel_time") or "op_name" not in told:
            continue
        shapes = [next(iter(shape.values())) for shape in told["input_type_shape"]]
        if told["op_name"] in PRODUCTS:
            products += 2.0 * math.prod(shapes[0]) * next(iter(told["output_type_shape"][0].values()))[-1]
        elif told["op_name"] == "MultiHeadAttention":  # (frames, patches, width): scores, and their product with values
            frames, patches, width = shapes[0]
            attention += 4.0 * frames * patches * patches * width
    return products, attention
