"""The vision tower as one ONNX graph for every pack of pictures and videos.

A Loop walks over the pack: each turn takes a group of whole frames of one item. So attention cannot cross a frame, no
mask exists, and the group bounds the memory, not the pack. The loop lies around the whole tower and not around each
attention, so the fused operators and the weights see what a single picture would show them.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contract.preprocessing import ImageProcessing
from export.graph.builder import Builder
from export.graph.group import Group
from export.graph.layers import Layers
from export.graph.linear import FP32, Linear
from export.graph.operators import DOMAIN, functions
from export.graph.tower import Read, Tower

GROUP_PATCHES = 1024  # a turn takes as many frames as fit into this many patches; a larger frame is a group alone
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class TowerWriter(Protocol):
    """The part of export.families.Family that a graph needs."""

    def body(self, graph: Builder, layers: Layers, tower: Tower, group: Group) -> tuple[str, list[str]]: ...

    def for_bytes(self, read: Read, image: ImageProcessing) -> Read: ...


def write_graph(
    family: TowerWriter,
    tower: Tower,
    read: Read,
    image: ImageProcessing,
    path: Path,
    linear: Linear = FP32,
    factors: Mapping[str, NDArray[np.float32]] | None = None,
    half: tuple[str, ...] = (),
) -> int:
    """Write the graph and its weights to `path` and `path` + .data; returns the number of nodes.

    Inputs: patches uint8 (num_patches, patch_width) in merge-block order, items one after another; grid_thw int64
    (num_items, 3). Outputs: image_embeds float32 (N, H), deepstack_embeds float32 (L, N, H) with
    N = num_patches / merge_size^2.

    Args:
        read: gives a tower tensor by its tower-local name, float32.
        image: how the checkpoint's processor normalises pixels for the tower.
        linear, factors, half: as in Layers.

    Raises:
        OSError: the disk is full, or the process may not write there.
    """
    graph, out, levels = Builder(), tower.out_hidden_size, len(tower.taps)
    # A pack whose grids ask for another number of patches fails here; nothing cuts it short.
    counts = graph.op("ReduceProd", ["grid_thw", graph.ints(1)], keepdims=0)  # (num_items,)
    total = graph.op("ReduceSum", [counts, graph.ints(0)], keepdims=1)  # (1,)
    shape = graph.op("Concat", [total, graph.ints(tower.patch_width)], axis=0)
    patches = graph.op("Reshape", ["patches", shape], "all_patches", allowzero=1)
    num_items = graph.op("Shape", ["grid_thw"], "num_items", start=0, end=1)  # (1,)
    # An empty tensor starts each sequence, so that an empty pack gives empty outputs.
    empties = {"image_embeds": (0, out)} | ({"deepstack_embeds": (levels, 0, out)} if levels else {})
    starts = [
        graph.op("SequenceConstruct", [graph.weight(f"no_{name}", partial(np.zeros, shape, np.float32))])
        for name, shape in empties.items()
    ]
    layers = Layers(graph, tower, family.for_bytes(read, image), linear, factors, half)
    turn = _turn(graph, layers, tower, family, patches, num_items)
    has_items = graph.op("Squeeze", [graph.op("Greater", [num_items, graph.ints(0)])])
    cursor = [graph.ints(0)] * 3
    names = [f"last_{name}" for name in ("item", "frame", "patch")] + [f"{name}_groups" for name in empties]
    graph.ops("Loop", ["", has_items, *cursor, *starts], names, body=turn)
    graph.op("ConcatFromSequence", ["image_embeds_groups"], "image_embeds", axis=0)
    if levels:
        graph.op("ConcatFromSequence", ["deepstack_embeds_groups"], "deepstack_embeds", axis=1)
    else:
        rows = graph.op("Shape", ["image_embeds"], start=0, end=1)
        shape = graph.op("Concat", [graph.ints(0), rows, graph.ints(out)], axis=0)
        graph.op("ConstantOfShape", [shape], "deepstack_embeds")
    inputs = [
        helper.make_tensor_value_info("patches", TensorProto.UINT8, ["num_patches", tower.patch_width]),
        helper.make_tensor_value_info("grid_thw", INT64, ["num_items", 3]),
    ]
    outputs = [
        helper.make_tensor_value_info("image_embeds", FLOAT, ["num_tokens", out]),
        helper.make_tensor_value_info("deepstack_embeds", FLOAT, [levels, "num_tokens", out]),
    ]
    graph.save(path, inputs, outputs, functions(graph.kinds(DOMAIN), tower.norm_epsilon, tower.activation))
    return graph.num_nodes()


def _turn(
    graph: Builder, layers: Layers, tower: Tower, family: TowerWriter, all_patches: str, num_items: str
) -> onnx.GraphProto:
    """The Loop's body: one group of frames. State: item, frame in the item, patch in the pack, each int64 (1,)."""
    levels = tower.levels
    with graph.body() as nodes:
        op = graph.op
        grid = op("Gather", ["grid_thw", op("Squeeze", ["item"])], "grid", axis=0)  # (3,)
        t, h, w = graph.ops("Split", [grid], ["t", "h", "w"], axis=0, num_outputs=3)  # 3 x (1,)
        hw = op("Mul", [h, w], "frame_patches")
        fitting = op("Div", [graph.ints(GROUP_PATCHES), op("Max", [hw, graph.ints(1)])])
        left = op("Sub", [t, "frame"])
        group = op("Min", [left, op("Max", [fitting, graph.ints(1)])], "group_frames")  # (1,)
        stop = op("Add", ["patch", op("Mul", [group, hw])], "next_patch")

        patches = op("Slice", [all_patches, "patch", stop, graph.ints(0)])  # (group * hw, patch_width)
        main, merged = family.body(graph, layers, tower, Group(patches, group, h, w, hw))
        op("SequenceInsert", ["image_embeds_so_far", main], "image_embeds_next")
        if levels:
            deepstack = op("Concat", merged, axis=0)  # (L, group * hw / merge^2, out)
            op("SequenceInsert", ["deepstack_embeds_so_far", deepstack], "deepstack_embeds_next")

        done = op("Equal", [left, group])  # the item's last frame is in this group
        op("Where", [done, graph.ints(0), op("Add", ["frame", group])], "next_frame")
        op("Add", ["item", op("Cast", [done], to=INT64)], "next_item")
        op("Squeeze", [op("Less", ["next_item", num_items])], "has_more")

    cursor = ("item", "frame", "patch")
    sequences = ["image_embeds"] + (["deepstack_embeds"] if levels else [])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    inputs = [helper.make_tensor_value_info("turn", INT64, []), helper.make_tensor_value_info("is_running", BOOL, [])]
    inputs += [helper.make_tensor_value_info(name, INT64, [1]) for name in cursor]
    inputs += [helper.make_value_info(f"{name}_so_far", kind) for name in sequences]
    outputs = [helper.make_tensor_value_info("has_more", BOOL, [])]
    outputs += [helper.make_tensor_value_info(f"next_{name}", INT64, [1]) for name in cursor]
    outputs += [helper.make_value_info(f"{name}_next", kind) for name in sequences]
    return helper.make_graph(nodes, "frames", inputs, outputs)
