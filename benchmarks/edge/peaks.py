"""What this CPU's matrix units reach: products of the tower's own shape, the best of several, in operations a second."""

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from benchmarks.encode import matrix_peak, seconds
from edge_runtime.session_options import session_options

ROWS, IN, OUT, ROUNDS = 1024, 1024, 4096, 10


def integer_peak(threads: int) -> float:
    """onnxruntime's MatMulInteger, uint8 by a constant int8."""
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
    return 2 * ROWS * IN * OUT / min(seconds(lambda: session.run(None, feed)) for _ in range(ROUNDS))


def bf16_peak(threads: int) -> float:
    """torch's linear layer in bfloat16."""
    torch.set_num_threads(threads)
    rows, weight = torch.randn(ROWS, IN).bfloat16(), torch.randn(OUT, IN).bfloat16()
    with torch.inference_mode():
        best = min(seconds(lambda: torch.nn.functional.linear(rows, weight)) for _ in range(ROUNDS))
    return 2 * ROWS * IN * OUT / best


def peaks(threads: int) -> dict[str, float]:
    """GFLOP/s by the type of the operands."""
    found = {"fp32": matrix_peak(threads), "bf16": bf16_peak(threads), "int8": integer_peak(threads)}
    return {name: value / 1e9 for name, value in found.items()}
