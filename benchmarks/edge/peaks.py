"""What this CPU reaches: matrix products of the tower's own shape by type, and its memory; the best of several runs.

For each type the quickest of the installed libraries counts.
"""

from collections.abc import Callable

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from benchmarks.encode import matrix_peak, seconds
from edge_runtime.tower.session_options import session_options

ROWS, IN, OUT, ROUNDS = 1024, 1024, 4096, 10
FLOP = 2 * ROWS * IN * OUT
COPIED_BYTES = 256 << 20


def best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of several calls."""
    return min(seconds(work) for _ in range(ROUNDS))


def onnxruntime_integer_peak(threads: int) -> float:
    """FLOP/s of onnxruntime's MatMulInteger, uint8 by a constant int8."""
    weight = np.random.default_rng(0).integers(-64, 64, (IN, OUT), np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [ROWS, IN])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [ROWS, OUT])],
        [helper.make_tensor("b", TensorProto.INT8, weight.shape, weight.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = session_options(threads)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"a": np.random.default_rng(1).integers(0, 255, (ROWS, IN), np.uint8)}
    return FLOP / best(lambda: session.run(None, feed))


def torch_peak(dtype: torch.dtype) -> float:
    """FLOP/s of torch's linear layer, or of its integer product."""
    if dtype == torch.int8:
        rows, weight = (torch.randint(-64, 64, shape, dtype=dtype) for shape in ((ROWS, IN), (IN, OUT)))
        return FLOP / best(lambda: torch._int_mm(rows, weight))
    rows, weight = torch.randn(ROWS, IN).to(dtype), torch.randn(OUT, IN).to(dtype)
    with torch.inference_mode():
        return FLOP / best(lambda: torch.nn.functional.linear(rows, weight))


def memory_peak() -> float:
    """Bytes a second that torch's copy reads and writes."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    target = torch.ones_like(source)
    return 2 * COPIED_BYTES / best(lambda: target.copy_(source))


def peaks(threads: int) -> dict[str, float]:
    """The highest GFLOP/s by the type of the operands, and GB/s of memory."""
    torch.set_num_threads(threads)
    found = {
        "fp32": max(matrix_peak(threads), torch_peak(torch.float32)),
        "bf16": torch_peak(torch.bfloat16),
        "int8": max(onnxruntime_integer_peak(threads), torch_peak(torch.int8)),
        "memory": memory_peak(),
    }
    return {name: value / 1e9 for name, value in found.items()}
