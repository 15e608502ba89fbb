"""The nodes of a Qwen vision tower: patch embedding and positions, blocks, mergers of main output and levels."""

from export.families.qwen_patches import PatchEmbedding
from export.families.qwen_positions import FramePositions
from export.families.qwen_windows import FrameWindows
from export.graph.builder import Builder
from export.graph.group import Group
from export.graph.layers import Layers
from export.graph.tower import Tower


def write_body(graph: Builder, layers: Layers, tower: Tower, group: Group) -> tuple[str, list[str]]:
    """The tower over one group of frames; see export.families.Family."""
    positions = FramePositions(graph, tower, group.height, group.width, group.frame_patches)
    embeddings = positions.embeddings(layers.weight("pos_embed.weight")) if tower.table_side else None
    rotary = positions.rotary()
    rows = _patch_embed(graph, layers, tower, group, embeddings)  # (group * hw, hidden)
    frames = graph.op(
        "Concat", [group.frames, group.frame_patches, graph.ints(3 * tower.hidden_size)], "group_shape", axis=0
    )
    whole = layers.whole_frames(rotary, frames)
    windows = FrameWindows(graph, layers, tower, group) if tower.window else None
    merged: list[str] = []
    for number in range(tower.depth):
        rows = layers.block(rows, number, whole if windows is None or number in tower.full_blocks else windows)
        for merger in (merger for tap, merger in tower.levels if tap == number):
            name = f"deepstack_merger_list.{merger}"
            level = _merger(graph, layers, tower, rows, name, is_norm_after=True)
            merged.append(graph.op("Unsqueeze", [level, graph.ints(0)]))  # (1, group * hw / merge^2, out)
    return _merger(graph, layers, tower, rows, "merger", is_norm_after=False), merged


def _patch_embed(graph: Builder, layers: Layers, tower: Tower, group: Group, positions: str | None) -> str:
    """uint8 (frames * hw, patch_width) to (frames * hw, hidden). It adds the positions (hw, hidden) to each frame where
    the tower has a table of them."""
    op, hidden = graph.op, tower.hidden_size
    rows = PatchEmbedding(graph, tower, layers.read)(group.patches)
    if positions is None:
        return rows
    frames = op("Concat", [group.frames, group.frame_patches, graph.ints(hidden)], axis=0)
    rows = op("Add", [op("Reshape", [rows, frames]), positions])  # (frames, hw, hidden)
    return op("Reshape", [rows, graph.ints(-1, hidden)])


def _merger(graph: Builder, layers: Layers, tower: Tower, rows: str, name: str, *, is_norm_after: bool) -> str:
    """(patches, hidden) to (patches / merge_size^2, out_hidden). It has an exact gelu, unlike the blocks."""
    merged = graph.ints(-1, tower.merged_size)
    if is_norm_after:  # the deepstack levels merge patches before the norm
        rows = layers.norm(graph.op("Reshape", [rows, merged]), f"{name}.norm")
    else:  # the main output
        rows = graph.op("Reshape", [layers.norm(rows, f"{name}.norm"), merged])
    rows = graph.op("Gelu", [layers.linear(rows, f"{name}.linear_fc1")], approximate="none")
    return layers.linear(rows, f"{name}.linear_fc2")
