"""An ONNX graph under construction: nodes with stable names, constants, and weights that nobody reads before `save`.

`save` writes one weight after another into a data file (data_file.py); small tensors stay inside the graph file. The
same graph gives the same bytes.
A tensor that only a Loop's body reads belongs to the body: onnxruntime's switch for exact integer products looks for
weights beside the product, not in the graph around it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.data_file import DataFile

OPSET, CONTRIB_OPSET, IR_VERSION = 20, 1, 10
CONTRIB = "com.microsoft"

Array = NDArray[Any]


@dataclass(frozen=True)
class Dialect:
    """The version of ONNX that a graph speaks; `has_contrib` lets it use onnxruntime's own operators."""

    opset: int = OPSET
    ir_version: int = IR_VERSION
    has_contrib: bool = True


class Builder:
    """Collects the nodes of a graph, or of a Loop body inside it, and the tensors both read."""

    def __init__(self, dialect: Dialect | None = None) -> None:
        self._dialect = dialect or Dialect()
        self._inline: dict[str, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[tuple[str, ...], Callable[[], tuple[Array, ...]]] = {}
        self._counts: dict[str, int] = {}

    def op(self, kind: str, inputs: list[str], name: str | None = None, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name, which is `name` where the caller gives one."""
        return self.ops(kind, inputs, [name or self._fresh(kind)], domain=domain, **attributes)[0]

    def ops(self, kind: str, inputs: list[str], names: list[str], *, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with the outputs `names`; returns `names`."""
        self._nodes.append(
            helper.make_node(kind, inputs, names, name=f"{names[0]}/{kind}", domain=domain, **attributes)
        )
        return names

    def _fresh(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind.lower()}_{self._counts[kind]}"

    def weight(self, name: str, read: Callable[[], Array]) -> str:
        """A named tensor, which `save` reads; returns `name`. A second call with the same name adds nothing."""
        return self.weights((name,), lambda: (read(),))[0]

    def weights(self, names: tuple[str, ...], read: Callable[[], tuple[Array, ...]]) -> tuple[str, ...]:
        """Named tensors that one `read` makes together, such as a quantised matrix and its scales; returns `names`."""
        self._tensors.setdefault(names, read)
        return names

    def constant(self, name: str, values: Array) -> str:
        """A tensor that stays in the graph file, whatever its size; returns `name`."""
        self._inline[name] = values
        return name

    def ints(self, *values: int) -> str:
        """An int64 constant of shape (len(values),); returns its name."""
        return self.weight("ints_" + "_".join(map(str, values)), lambda: np.array(values, np.int64))

    def scalar(self, value: float, dtype: Any = np.float32) -> str:
        """A constant of shape (); returns its name."""
        return self.weight(f"{np.dtype(dtype).name}_{value}", lambda: np.array(value, dtype))

    @contextmanager
    def body(self) -> Iterator[list[onnx.NodeProto]]:
        """Nodes added inside the block go to the list it yields, for a Loop's sub-graph."""
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def num_nodes(self) -> int:
        """Nodes of the graph and of its bodies."""
        return len(self._nodes) + sum(len(body.node) for body in self._bodies())

    def kinds(self, domain: str) -> list[str]:
        """The operators of a domain that the graph uses, each once, sorted."""
        nodes = [*self._nodes, *(node for body in self._bodies() for node in body.node)]
        return sorted({node.op_type for node in nodes if node.domain == domain})

    def _bodies(self) -> list[onnx.GraphProto]:
        return [a.g for node in self._nodes for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]

    def save(
        self,
        path: Path,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        functions: Sequence[onnx.FunctionProto] = (),
        data: DataFile | None = None,
    ) -> None:
        """Write `path`, and the large tensors.

        Args:
            functions: say what the operators of other domains compute.
            data: takes the large tensors, and gives those that another graph has written before; None makes the file
                `path` + .data.

        Raises:
            OSError: the disk is full, or the process may not write there.
        """
        if data is None:
            with DataFile(path.with_name(path.name + ".data")) as own:
                self.save(path, inputs, outputs, functions, own)
            return
        tensors = [tensor for names, read in self._tensors.items() for tensor in data.tensors(names, read)]
        tensors += [numpy_helper.from_array(values, name) for name, values in self._inline.items()]
        bodies = self._bodies()
        shared = {name for node in self._nodes for name in node.input}
        if len(bodies) == 1:
            bodies[0].initializer.extend(tensor for tensor in tensors if tensor.name not in shared)
            tensors = [tensor for tensor in tensors if tensor.name in shared]
        graph = helper.make_graph(self._nodes, "vision_tower", inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", self._dialect.opset)]
        opsets += [helper.make_opsetid(CONTRIB, CONTRIB_OPSET)] if self._dialect.has_contrib else []
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({function.domain for function in functions})]
        model = helper.make_model(
            graph,
            functions=functions,
            opset_imports=opsets,
            ir_version=self._dialect.ir_version,
            producer_name="edge-vlm",
        )
        path.write_bytes(model.SerializeToString(deterministic=True))
