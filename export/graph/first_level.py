"""Cuts a written graph behind its first deepstack level; the weights file stays the same.

A whole tower takes a minute for the largest frame on two cores, and so does the original. The first level has passed
through everything that depends on the grid and through some of the blocks; what follows repeats them. The cut of a
tower without levels lies behind a quarter of its blocks, and the merger follows those.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto


def first_level_graph(path: Path, num_blocks: int) -> onnx.ModelProto:
    """The model of `path` with the rows of level 0 as both outputs: image_embeds (N, H), deepstack_embeds (1, N, H).
    Without levels: the model with its first num_blocks blocks only.

    The weights file beside `path` is still its own. The model no longer names the nodes and tensors that only the rest
    of the tower uses.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    (loop,) = (node for node in graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    made = {name: node for node in body.node for name in node.output}
    if "deepstack_embeds_next" in made:
        levels = made[made["deepstack_embeds_next"].input[1]]  # Concat of (1, N, H) each
        del levels.input[1:]
        made["image_embeds_next"].input[1] = made[levels.input[0]].input[0]  # before its Unsqueeze
        graph.output[1].type.tensor_type.shape.dim[0].dim_value = 1
    else:
        made["merger.norm"].input[0] = f"blocks.{num_blocks - 1}"
    _keep(body.node, (output.name for output in body.output))
    _drop_unused(body.initializer, {name for node in body.node for name in node.input})
    _keep(graph.node, (output.name for output in graph.output))
    inner = {name for node in graph.node for part in node.attribute for one in part.g.node for name in one.input}
    _drop_unused(graph.initializer, inner.union(*(node.input for node in graph.node)))
    return model


def _keep(nodes: Any, outputs: Iterable[str]) -> None:
    """Remove the nodes that no output needs; nodes stand in the order in which they run."""
    needed, kept = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:  # a body reads values of the graph around it
                needed.update(name for inner in attribute.g.node for name in inner.input)
    del nodes[:]
    nodes.extend(reversed(kept))


def _drop_unused(tensors: Any, used: set[str]) -> None:
    kept = [tensor for tensor in tensors if tensor.name in used]
    del tensors[:]
    tensors.extend(kept)
