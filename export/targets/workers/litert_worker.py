"""Google's LiteRT (TensorFlow Lite): a .tflite file in float32, which its interpreter runs on this processor.

Google's converter takes PyTorch modules and no ONNX graphs, so this script makes a module of the graph's nodes. It needs
torch, which comes from this project's packages.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from job_files import answer_all, read_job
from onnx import numpy_helper


def main() -> None:
    job, pictures = read_job()
    sys.path.append(job["packages"])
    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter

    started, file = time.monotonic(), f"{job['file']}.tflite"
    module = module_of(onnx.load(job["graph"]), job["outputs"])
    litert_torch.convert(module.eval(), (torch.from_numpy(pictures[0]),)).export(file)
    runner = Interpreter(file, num_threads=2).get_signature_runner()
    (entry,) = runner.get_input_details()

    def answer(picture: Any) -> list[Any]:
        outputs = runner(**{entry: picture})
        return [outputs[f"output_{place}"] for place in range(len(job["outputs"]))]

    answer_all(job, pictures, started, file, answer, ("litert-torch", "ai-edge-litert", "torch"))


def module_of(model: onnx.ModelProto, outputs: list[str]) -> Any:
    """A torch module that runs the graph's nodes and returns the outputs as a tuple."""
    import torch

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    functions = operators()

    class Nodes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = {name: f"constant{i}" for i, name in enumerate(constants)}
            for name, place in self.places.items():
                self.register_buffer(place, torch.from_numpy(constants[name].copy()))

        def forward(self, patches: Any) -> Any:
            held: dict[str, Any] = {"patches": patches}
            for node in model.graph.node:
                settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
                given = [held[name] if name in held else self.constant(name) for name in node.input]
                found = functions[node.op_type](*given, **settings)
                held.update(zip(node.output, found if isinstance(found, tuple) else (found,), strict=True))
            return tuple(held[name] for name in outputs)

        def constant(self, name: str) -> Any:
            """A tensor, or a list of whole numbers, which is a shape."""
            is_shape = constants[name].dtype == np.int64
            return constants[name].tolist() if is_shape else getattr(self, self.places[name])

    return Nodes()


def operators() -> dict[str, Callable[..., Any]]:
    """The operators of static graphs in torch, by their ONNX names."""
    import torch

    return {
        "Add": torch.add,
        "Concat": lambda *parts, axis: torch.cat(parts, axis),
        "Div": torch.div,
        "Erf": torch.erf,
        "LayerNormalization": lambda rows, weight, bias, axis, epsilon: torch.nn.functional.layer_norm(
            rows, rows.shape[axis:], weight, bias, epsilon
        ),
        "MatMul": torch.matmul,
        "Mul": torch.mul,
        "ReduceMean": lambda rows, axes, keepdims: rows.mean(axes, keepdim=bool(keepdims)),
        "Reshape": torch.reshape,
        "Sigmoid": torch.sigmoid,
        "Softmax": lambda rows, axis: torch.softmax(rows, axis),
        "Split": lambda rows, sizes, axis: torch.split(rows, sizes, axis),
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Tanh": torch.tanh,
        "Transpose": lambda rows, perm: rows.permute(perm),
    }


if __name__ == "__main__":
    main()
