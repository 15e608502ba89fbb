#!/usr/bin/env bash
# onnxruntime 1.31.1 opens external data through a symbolic link where an initializer of the main graph has it, and refuses
# the same link where an initializer inside the body of a Loop has it. Hub caches, DVC, Nix and Kubernetes lay files as links.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIZE = 4096
INFO = helper.make_tensor_value_info


def model(is_inside: bool) -> onnx.ModelProto:
    """y = x + w, once, in the body of a Loop; w belongs to the body or to the main graph."""
    weight = numpy_helper.from_array(np.ones(SIZE, np.float32), "w")
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["goes"])],
        "body",
        [INFO("i", TensorProto.INT64, []), INFO("go", TensorProto.BOOL, []), INFO("state", TensorProto.FLOAT, [SIZE])],
        [INFO("goes", TensorProto.BOOL, []), INFO("next", TensorProto.FLOAT, [SIZE])],
        [weight] if is_inside else [],
    )
    counts = [numpy_helper.from_array(np.array(1, np.int64), "n"), numpy_helper.from_array(np.array(True), "yes")]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "yes", "x"], ["y"], body=body)],
        "main",
        [INFO("x", TensorProto.FLOAT, [SIZE])],
        [INFO("y", TensorProto.FLOAT, [SIZE])],
        counts + ([] if is_inside else [weight]),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    for tensor in [*made.graph.node[0].attribute[0].g.initializer, *made.graph.initializer]:
        if tensor.name == "w":
            Path("store").mkdir(exist_ok=True)
            Path("store/blob").write_bytes(tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, "weights.data")
            tensor.ClearField("raw_data")
    return made


print(f"onnxruntime {onnxruntime.__version__}")
said = {}
for is_inside in (False, True):
    folder = Path(f"inside_{is_inside}")
    folder.mkdir()
    made = model(is_inside)
    onnx.save(made, f"store/{folder}")
    (folder / "model.onnx").symlink_to(Path(f"../store/{folder}"))
    (folder / "weights.data").symlink_to(Path("../store/blob"))
    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": np.zeros(SIZE, np.float32)})
        said[is_inside] = f"opens, and adds {y[0]:.0f}"
    except Exception as error:
        said[is_inside] = f"{type(error).__name__}: {str(error)[:200]}"
print(f"w in the main graph:      {said[False]}")
print(f"w in the body of a Loop:  {said[True]}")
print("expected: both open")
assert said[False].startswith("opens"), "the main graph's link is refused now, too"
assert not said[True].startswith("opens"), "the body's link opens now"
PYTHON
