"""Where each patch of one frame stands, and what follows from it: interpolated positions and rotary angles.

The graph computes all of it from (h, w), so a caller passes pixels and grids and nothing else. It makes the tables for
one frame, and all frames of the item share them.
"""

import numpy as np

from export.graph.builder import Builder
from export.graph.tower import Tower


def inverse_frequencies(graph: Builder, tower: Tower) -> str:
    """The factors that turn the number of a row or column into angles, float32 (head_dim / 4,)."""
    axis_dim = tower.head_dim // 2
    exponent = np.arange(0, axis_dim, 2) / axis_dim  # float64: powers in float32 follow the processor
    inverse = (1.0 / tower.rope_theta**exponent).astype(np.float32)
    return graph.weight("rotary_inverse_frequencies", lambda: inverse)


class FramePositions:
    """Graph values of one frame of h x w patches in merge-block order.

    Rows and columns follow transformers' `get_vision_interpolation_indices_and_weights` (vision_utils.py).
    """

    def __init__(self, graph: Builder, tower: Tower, height: str, width: str, num_patches: str) -> None:
        """
        Args:
            height, width: int64 (1,), sides of the frame in patches, multiples of merge_size.
            num_patches: int64 (1,), height times width.
        """
        self._graph, self._tower = graph, tower
        op, merge = graph.op, graph.ints(tower.merge_size)
        zero, one = graph.scalar(0, np.int64), graph.scalar(1, np.int64)
        places = op("Range", [zero, op("Squeeze", [num_patches]), one])  # (hw,)
        blocks_w = op("Max", [op("Div", [width, merge]), graph.ints(1)])  # (1,); never 0, a division by it is a crash
        block = op("Div", [places, graph.ints(tower.merge_size**2)])
        in_row = op("Mod", [op("Div", [places, merge]), merge])
        in_col = op("Mod", [places, merge])
        block_row, block_col = op("Div", [block, blocks_w]), op("Mod", [block, blocks_w])
        row = op("Add", [op("Mul", [block_row, merge]), in_row], "row")
        col = op("Add", [op("Mul", [block_col, merge]), in_col], "col")
        self._row, self._col = (op("Cast", [axis], to=1) for axis in (row, col))  # float32 (hw,)
        self._height, self._width = height, width

    def _taps(self, index: str, size: str) -> list[tuple[str, str]]:
        """(table index int64 (hw,), weight float32 (hw, 1)) of the two neighbours on one axis, align_corners=True."""
        graph, op, last = self._graph, self._graph.op, self._tower.table_side - 1
        steps = op("Cast", [op("Max", [op("Sub", [size, graph.ints(1)]), graph.ints(1)])], to=1)
        source = op("Div", [op("Mul", [index, graph.scalar(last)]), steps])  # (hw,), 0 .. last
        floor = op("Floor", [source])
        low = op("Cast", [floor], to=7)
        high = op("Min", [op("Add", [low, graph.ints(1)]), graph.ints(last)])
        fraction = op("Unsqueeze", [op("Sub", [source, floor]), graph.ints(1)])  # (hw, 1)
        return [(low, op("Sub", [graph.scalar(1.0), fraction])), (high, fraction)]

    def embeddings(self, table: str) -> str:
        """The learned table (table_side^2, hidden) at the frame's size, float32 (hw, hidden): bilinear, four taps a
        patch, summed in float32."""
        graph, op = self._graph, self._graph.op
        rows, cols = self._taps(self._row, self._height), self._taps(self._col, self._width)
        total = ""
        for row, row_weight in rows:
            start = op("Mul", [row, graph.ints(self._tower.table_side)])
            for col, col_weight in cols:
                tap = op("Gather", [table, op("Add", [start, col])], axis=0)  # (hw, hidden)
                tap = op("Mul", [tap, op("Mul", [row_weight, col_weight])])
                total = op("Add", [total, tap]) if total else tap
        return total

    def rotary(self) -> tuple[str, str]:
        """Cosines and sines, float32 (hw, head_dim / 2): a row's angles in the first half, a column's in the second.

        Frequencies as in transformers' `Qwen3VLVisionRotaryEmbedding.compute_axial_rope_parameters`.
        """
        graph, op = self._graph, self._graph.op
        frequencies = inverse_frequencies(graph, self._tower)
        halves = [
            op("Mul", [op("Unsqueeze", [axis, graph.ints(1)]), frequencies]) for axis in (self._row, self._col)
        ]  # 2 x (hw, head_dim / 4)
        angles = op("Concat", halves, axis=1)  # (hw, head_dim / 2)
        return op("Cos", [angles], "rotary_cos"), op("Sin", [angles], "rotary_sin")
