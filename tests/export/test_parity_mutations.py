"""The gate can fail: graphs with one mistake each, made by editing the written model, must miss it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper
from onnx.inliner import inline_selected_functions

from export import families
from export.gate import parity
from export.gate.oracle import Oracle
from export.gate.packs import Pack
from export.graph.first_level import first_level_graph
from export.graph.loop import write_graph
from export.integers.rotation import Rotation
from export.precision import BY_NAME
from export.source.checkpoint import Checkpoint

PACKS: tuple[Pack, ...] = (((1, 8, 12),), ((3, 6, 4),), ((1, 6, 10), (2, 4, 8)), ((1, 4, 6), (1, 4, 6)))
MOVING = {"3x6x4", "1x6x10 + 2x4x8", "1x4x6 + 1x4x6"}  # the second of two frames alone is a video of two frames
GATE = BY_NAME["fp32"].gate


class Written:
    """A written graph and its oracle; `edit` gives a changed copy beside it."""

    def __init__(self, folder: Path, source: Path, precision: str = "fp32") -> None:
        checkpoint = Checkpoint(source)
        self.tower, self.path = families.tower(checkpoint.config), folder / "vision.onnx"
        self.oracle = Oracle(
            checkpoint.config, checkpoint.image, list(checkpoint.tower_shapes), checkpoint.tower_tensor
        )
        read = (
            checkpoint.tower_tensor if precision in ("fp32", "fp16") else Rotation(self.tower, checkpoint.tower_tensor)
        )
        write_graph(
            families.find(checkpoint.config["model_type"]),
            self.tower,
            read,
            checkpoint.image,
            self.path,
            BY_NAME[precision].linear,
            half=("blocks.0.",),
        )

    def rows(self, edit: Callable[[onnx.GraphProto, list[NodeProto]], None]) -> list[parity.Row]:
        """Parity rows after `edit`, which gets the graph and the nodes of the loop's body: operators of our own that do
        more than one layer are written out, so that what is in them can be changed too."""
        model = onnx.load(self.path, load_external_data=False)
        whole = [
            (function.domain, function.name) for function in model.functions if not function.name.startswith("Linear")
        ]
        model = inline_selected_functions(model, whole)
        (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
        body = loop.attribute[0].g
        nodes = list(body.node)
        edit(model.graph, nodes)
        del body.node[:]
        body.node.extend(nodes)
        changed = self.path.with_name("changed.onnx")
        changed.write_bytes(model.SerializeToString())
        return parity.measure(changed, self.tower, parity.answers(self.tower, self.oracle, PACKS), PACKS)


Rounded = tuple[str, Written]


@pytest.fixture(scope="module")
def written(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("graph"), checkpoint)


def made(nodes: list[NodeProto], output: str) -> NodeProto:
    (node,) = (node for node in nodes if output in node.output)
    return node


def all_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """The tensors of the graph and of its loop's body."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [tensor for owner in (graph, *bodies) for tensor in owner.initializer]


def levels(nodes: list[NodeProto]) -> NodeProto:
    """The node that joins the deepstack levels."""
    return made(nodes, made(nodes, "deepstack_embeds_next").input[1])


def drop_level(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    joined = levels(nodes)
    nodes.insert(nodes.index(joined), helper.make_node("Mul", [joined.input[1], "nothing"], ["dropped"]))
    joined.input[1] = "dropped"


def swap_levels(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    joined = levels(nodes)
    joined.input[0], joined.input[1] = joined.input[1], joined.input[0]


def raster_order(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    (places,) = (node.output[0] for node in nodes if node.op_type == "Range")
    for name, kind in (("row", "Div"), ("col", "Mod")):
        node = made(nodes, name)
        nodes[nodes.index(node)] = helper.make_node(kind, [places, "w"], [name])


def swap_rotary_axes(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    angles = made(nodes, made(nodes, "rotary_cos").input[0])
    angles.input[0], angles.input[1] = angles.input[1], angles.input[0]


def count_patches_in_a_line(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """1-D positions: the angles of a patch come from its place in the sequence."""
    (places,) = (node.output[0] for node in nodes if node.op_type == "Range")
    angles = made(nodes, made(nodes, "rotary_cos").input[0])
    for half in angles.input:
        cast = made(nodes, made(nodes, made(nodes, half).input[0]).input[0])
        shared = [node for node in nodes if cast.output[0] in node.input and node.op_type == "Unsqueeze"]
        line = helper.make_node("Cast", [places], [f"{half}_line"], to=1)
        nodes.insert(nodes.index(shared[0]), line)
        shared[0].input[0] = line.output[0]


def ignore_the_second_slice(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    node = made(nodes, "patch_embed")
    nodes[nodes.index(node)] = helper.make_node("Identity", [node.input[0]], ["patch_embed"])


def take_the_second_slice_for_the_first(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    for node in nodes:
        if "first_slice" in node.input and node.op_type == "DequantizeLinear":
            node.input[0] = "second_slice"


def move_what_stands_still(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """The change goes to the patches in the order they come, and not to those that it was taken from."""
    node = made(nodes, "patch_embed")
    first = helper.make_node("Shape", [node.input[1]], ["changes"], end=1)
    places = helper.make_node("Range", ["start", "number", "step"], ["in_order"])
    number = helper.make_node("Squeeze", ["changes"], ["number"])
    column = helper.make_node("Unsqueeze", ["in_order", "last_axis"], ["in_order_column"])
    for name, value in (("start", 0), ("step", 1), ("last_axis", [1])):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    for added in (first, number, places, column):
        nodes.insert(nodes.index(node), added)
    node.input[1] = "in_order_column"


def bytes_off_their_middle(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(127, np.uint8), "off_the_middle"))
    for node in nodes:
        if node.op_type == "DequantizeLinear":
            node.input[2] = "off_the_middle"


def attend_across_frames(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([1, -1, 64]), "one_sequence"))
    for node in [node for node in nodes if node.op_type == "MultiHeadAttention"]:
        for i, name in enumerate(list(node.input)):
            joined = helper.make_node("Reshape", [name, "one_sequence"], [f"{name}_joined"])
            nodes.insert(nodes.index(node), joined)
            node.input[i] = joined.output[0]


def tanh_gelu_in_mergers(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "Gelu":
            node.attribute[0].s = b"tanh"


def exact_gelu_in_blocks(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "FastGelu":
            node.op_type, node.domain = "Gelu", ""


def norm_after_merge(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    norm = made(nodes, "merger.norm")
    (merge,) = (node for node in nodes if node.op_type == "Reshape" and node.input[0] == "merger.norm")
    stored = {tensor.name: tensor for tensor in all_tensors(graph)}
    for i in (1, 2):  # 64 wide, inside the graph file: the four patches of a block get the same scale
        wide = np.tile(numpy_helper.to_array(stored[norm.input[i]]), 4)
        graph.initializer.append(numpy_helper.from_array(wide, f"{norm.input[i]}_wide"))
        norm.input[i] += "_wide"
    merge.input[0], norm.input[0] = norm.input[0], "merged_first"
    norm.output[0], merge.output[0] = merge.output[0], "merged_first"
    a, b = nodes.index(norm), nodes.index(merge)
    nodes[a], nodes[b] = merge, norm


def test_the_unchanged_graph_passes(written: Written) -> None:
    rows = written.rows(lambda graph, nodes: None)
    assert len(rows) == len(PACKS) * 4
    assert all(row.passes(GATE) for row in rows)


@pytest.mark.parametrize(
    ("edit", "only"),
    [
        (drop_level, {"deepstack_embeds[1]"}),
        (swap_levels, {"deepstack_embeds[0]", "deepstack_embeds[1]"}),
        (raster_order, None),
        (swap_rotary_axes, None),
        (count_patches_in_a_line, None),
        (tanh_gelu_in_mergers, None),
        (exact_gelu_in_blocks, None),
        (norm_after_merge, {"image_embeds"}),
        (bytes_off_their_middle, None),
    ],
)
def test_a_mutation_fails(written: Written, edit: Callable[..., None], only: set[str] | None) -> None:
    rows = written.rows(edit)
    failed = {row.output for row in rows if not row.passes(GATE)}
    assert failed == (only or {row.output for row in rows})


@pytest.fixture(scope="module", params=["fp16", "int8", "int4"])
def rounded(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Rounded:
    precision = request.param
    return precision, Written(tmp_path_factory.mktemp(precision), checkpoint, precision)


def test_a_mutation_fails_the_wider_gates_too(rounded: Rounded) -> None:
    """What rounding could hide, such as the other gelu, is the fp32 gate's to find: the graph's layers are the same."""
    precision, written = rounded
    gate, outputs = BY_NAME[precision].gate, {f"deepstack_embeds[{i}]" for i in range(3)} | {"image_embeds"}

    def failed(edit: Callable[..., None]) -> set[str]:
        return {row.output for row in written.rows(edit) if not row.passes(gate)}

    assert failed(lambda graph, nodes: None) == set()
    assert failed(drop_level) == {"deepstack_embeds[1]"}
    assert failed(swap_levels) == {"deepstack_embeds[0]", "deepstack_embeds[1]"}
    assert failed(ignore_the_second_slice) == outputs
    for edit in (raster_order, swap_rotary_axes, count_patches_in_a_line):
        assert "image_embeds" in failed(edit) if precision == "int4" else failed(edit) == outputs


def test_the_first_level_alone_is_that_of_the_whole_graph(written: Written) -> None:
    expected = parity.first_level_answers(written.tower, written.oracle, PACKS)
    cut, folder = first_level_graph(written.path, written.tower.num_first_blocks), written.path.parent
    whole_graph = onnx.load(written.path, load_external_data=False).graph
    assert len(all_tensors(cut.graph)) < 0.5 * len(all_tensors(whole_graph))
    rows = parity.measure(cut, written.tower, expected, PACKS, folder=folder)
    whole = [row for row in written.rows(lambda graph, nodes: None) if row.output == "deepstack_embeds[0]"]
    assert rows == whole

    def edited(edit: Callable[..., None]) -> list[parity.Row]:
        written.rows(edit)
        cut = first_level_graph(written.path.with_name("changed.onnx"), written.tower.num_first_blocks)
        return parity.measure(cut, written.tower, expected, PACKS, folder=folder)

    for edit in (raster_order, swap_rotary_axes, swap_levels):
        assert not any(row.passes(GATE) for row in edited(edit))


def test_the_first_blocks_of_a_tower_without_levels(no_levels: Path, tmp_path: Path) -> None:
    written = Written(tmp_path, no_levels)
    tower, folder = written.tower, written.path.parent
    expected = parity.first_level_answers(tower, written.oracle, PACKS)
    cut = first_level_graph(written.path, tower.num_first_blocks)
    rows = parity.measure(cut, tower, expected, PACKS, folder=folder)
    assert {row.output for row in rows} == {"image_embeds of the first blocks"}
    assert all(row.passes(GATE) for row in rows)
    whole = parity.measure(first_level_graph(written.path, 2), tower, expected, PACKS, folder=folder)
    assert not any(row.passes(GATE) for row in whole)


def test_attention_across_frames_fails_on_videos_alone(written: Written) -> None:
    rows = written.rows(attend_across_frames)
    assert {row.pack for row in rows if not row.passes(GATE)} == {"3x6x4", "1x6x10 + 2x4x8"}


@pytest.mark.parametrize("edit", [ignore_the_second_slice, take_the_second_slice_for_the_first, move_what_stands_still])
def test_a_lost_slice_fails_on_what_moves_alone(written: Written, edit: Callable[..., None]) -> None:
    rows = written.rows(edit)
    assert {row.pack for row in rows if not row.passes(GATE)} == MOVING


def test_values_that_are_not_finite_fail() -> None:
    expected = np.ones((4, 8), np.float32)
    got = expected.copy()
    got[2, 3] = np.nan
    assert not parity.compare("1x2x2", "image_embeds", expected, got).passes(GATE)
    assert not parity.compare("1x2x2", "image_embeds", expected, expected[:2]).passes(GATE)
    assert parity.compare("1x2x2", "image_embeds", expected, expected).passes(GATE)
