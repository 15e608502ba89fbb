"""Attention in which a row sees its window of the frame: a frame has at most four sizes of windows, so it needs no
mask.

The graph calls the operator that also takes whole frames four times: for whole windows, for those cut at the right, at
the bottom, and at both. Rotary angles start at each window's own corner, because a product of rotated queries and keys
depends on the difference of their places alone. A frame without windows of a size gives that call one row, whose answer
nobody reads.
"""

from dataclasses import dataclass

import numpy as np

from export.families.qwen_positions import inverse_frequencies
from export.graph.builder import Builder
from export.graph.group import Group
from export.graph.layers import Layers
from export.graph.tower import Tower


@dataclass(frozen=True)
class Span:
    """How windows of one length lie along an axis, int64 (1,) each: `count` of `length` patches from `start` on."""

    start: str
    count: str
    length: str


class FrameWindows:
    """Windowed attention over one group of frames, rows in merge-block order.

    The windows are those of `get_vision_window_index` (transformers 5.23, vision_utils.py).
    """

    def __init__(self, graph: Builder, layers: Layers, tower: Tower, group: Group) -> None:
        self._graph, self._layers, self._tower, self._group = graph, layers, tower, group
        op = graph.op
        self._total = op("Mul", [group.frames, group.frame_patches])  # (1,)
        spans = [(row, col) for row in self._spans(group.height) for col in self._spans(group.width)]
        found = [self._windows(*pair) for pair in spans]
        self._places = [places for places, *_ in found]
        self._shapes = [shape for *_, shape in found]
        self._rotary = [rotary for _, _, rotary, _ in found]
        targets = op("Concat", [target for _, target, *_ in found], axis=0)
        # Sorts the places; those that stand for no row come last. The indexes say where each row went.
        _, self._back = graph.ops(
            "TopK", [targets, self._total], ["window_places", "window_rows"], axis=0, largest=0, sorted=1
        )

    def __call__(self, packed: str) -> str:
        """Packed queries, keys and values (patches, 3 * hidden) to (patches, hidden)."""
        op, layers = self._graph.op, self._layers
        parts = [
            layers.whole_frames(rotary, shape)(op("Gather", [packed, places], axis=0))
            for places, rotary, shape in zip(self._places, self._rotary, self._shapes, strict=True)
        ]
        return op("Gather", [op("Concat", parts, axis=0), self._back], axis=0)

    def _spans(self, size: str) -> tuple[Span, Span]:
        """The whole windows of an axis, and the one that the edge cuts; either may have no patches."""
        graph, op, window = self._graph, self._graph.op, self._graph.ints(self._tower.window)
        count = op("Div", [size, window])
        covered = op("Mul", [count, window])
        return Span(graph.ints(0), count, window), Span(covered, graph.ints(1), op("Sub", [size, covered]))

    def _windows(self, rows: Span, cols: Span) -> tuple[str, str, tuple[str, str], str]:
        """All windows of one size.

        Returns:
            int64 (n,) places of their rows; the same for the sort, which puts it behind the last place where there are
            no such windows; cosines and sines of one window; int64 (3,) the shape (windows, rows of a window, 3 *
            hidden).
        """
        graph, op, tower, group = self._graph, self._graph.op, self._tower, self._group
        one, merge = graph.ints(1), graph.ints(tower.merge_size)
        number = op("Mul", [op("Mul", [rows.count, rows.length]), op("Mul", [cols.count, cols.length])])
        exists = op("Min", [number, one])  # (1,), 0 or 1
        rows, cols = (
            Span(
                op("Mul", [span.start, exists]),
                op("Max", [op("Mul", [span.count, exists]), one]),
                op("Max", [op("Mul", [span.length, exists]), one]),
            )
            for span in (rows, cols)
        )
        row, col = self._range(op("Mul", [rows.count, rows.length])), self._range(op("Mul", [cols.count, cols.length]))
        row, col = op("Add", [row, rows.start]), op("Add", [col, cols.start])
        # a merge block's patches stand side by side, and the blocks of a row one behind the other
        above = op("Mul", [op("Div", [row, merge]), op("Mul", [group.width, merge])])
        row_place = op("Add", [above, op("Mul", [op("Mod", [row, merge]), merge])])
        before = op("Mul", [op("Div", [col, merge]), graph.ints(tower.merge_size**2)])
        col_place = op("Add", [before, op("Mod", [col, merge])])
        frame_place = op("Mul", [self._range(group.frames), group.frame_patches])
        places = op(
            "Add",
            [
                self._shaped(row_place, one, rows.count, one, rows.length, one),
                self._shaped(col_place, one, one, cols.count, one, cols.length),
            ],
        )
        places = op("Add", [places, self._shaped(frame_place, group.frames, one, one, one, one)])
        places = op("Reshape", [places, graph.ints(-1)])  # (n,): frame, window, row and column in it
        target = op("Add", [op("Mul", [places, exists]), op("Mul", [op("Sub", [one, exists]), self._total])])
        windows = op("Mul", [group.frames, op("Mul", [rows.count, cols.count])])
        size = op("Mul", [rows.length, cols.length])
        shape = op("Concat", [windows, size, graph.ints(3 * tower.hidden_size)], axis=0)
        return places, target, self._angles(rows.length, cols.length), shape

    def _angles(self, height: str, width: str) -> tuple[str, str]:
        """Cosines and sines of a window, float32 (height * width, head_dim / 2), as FramePositions.rotary has them."""
        graph, op, quarter = self._graph, self._graph.op, self._tower.head_dim // 4
        one, frequencies = graph.ints(1), inverse_frequencies(graph, self._tower)
        whole = op("Concat", [height, width, graph.ints(quarter)], axis=0)
        halves = []
        for length, shape in ((height, (height, one, one)), (width, (one, width, one))):
            places = self._shaped(op("Cast", [self._range(length)], to=1), *shape)
            halves.append(op("Expand", [op("Mul", [places, frequencies]), whole]))
        angles = op("Reshape", [op("Concat", halves, axis=2), graph.ints(-1, 2 * quarter)])
        return op("Cos", [angles]), op("Sin", [angles])

    def _range(self, count: str) -> str:
        """0 .. count - 1, int64 (count,)."""
        graph = self._graph
        return graph.op("Range", [graph.scalar(0, np.int64), graph.op("Squeeze", [count]), graph.scalar(1, np.int64)])

    def _shaped(self, values: str, *sides: str) -> str:
        return self._graph.op("Reshape", [values, self._graph.op("Concat", list(sides), axis=0)])
