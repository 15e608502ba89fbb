"""The patch embedding of bytes: its weights contain the normalisation, and it multiplies no slice of time twice.

A patch has two slices of time, and both slices of a still are the same bytes. So the layer multiplies the first slice
with the sum of both slices' weights. Only in patches that change does it multiply the change with the second slice's
weights. These two matrices take the place of the checkpoint's two. The layer stays float32 in every precision: it is a
hundredth of a tower and stands in front of everything, and fewer bits would round the folded gain and the sum.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from contract.preprocessing import ImageProcessing
from export.graph.builder import Builder
from export.graph.linear import FP32, LinearSource
from export.graph.tower import Tower

Read = Callable[[str], NDArray[np.float32]]
Tensor = Callable[[], NDArray[np.float32]]
NAME, CHANGE = "patch_embed.proj", "patch_embed.change"
MIDDLE = 128  # the middle of the bytes, and their divisor: nothing large cancels, and no byte loses a bit


def for_bytes(read: Read, image: ImageProcessing) -> Read:
    """`read`, which changes the patch embedding's weight and bias: they give of (byte - 128) / 128 what the
    checkpoint's give of normalised pixels."""
    mean, std = (np.array(values)[:, None, None, None] for values in (image.mean, image.std))  # float64 (3, 1, 1, 1)
    gain, offset = MIDDLE / 255 / std, (MIDDLE / 255 - mean) / std

    def change(name: str) -> NDArray[np.float32]:
        if name == f"{NAME}.weight":
            return (read(name) * gain).astype(np.float32)
        if name == f"{NAME}.bias":
            weight = read(f"{NAME}.weight").astype(np.float64)  # (hidden, 3, slices, patch, patch)
            folded: NDArray[np.float32] = (read(name) + (weight * offset).reshape(len(weight), -1).sum(1)).astype(
                np.float32
            )
            return folded
        return read(name)

    return change


def still_weight(read: Read, tower: Tower) -> NDArray[np.float32]:
    """The weight of one slice of a still, float32 (hidden, 3 * patch_size^2); `read` is what for_bytes returned."""
    weight = read(f"{NAME}.weight").reshape(tower.hidden_size, 3, 2, tower.patch_size**2)
    summed: NDArray[np.float32] = weight.sum(2).reshape(tower.hidden_size, -1)
    return summed


class PatchEmbedding:
    """Adds the layer to a graph; `read` is what for_bytes returned."""

    def __init__(self, graph: Builder, tower: Tower, read: Read) -> None:
        self._graph, self._tower, self._read = graph, tower, read
        self._area, self._hidden = tower.patch_size**2, tower.hidden_size

    def __call__(self, patches: str) -> str:
        """uint8 (patches, patch_width) to (patches, hidden)."""
        graph, op = self._graph, self._graph.op
        slices = op("Reshape", [patches, graph.ints(0, 3, 2, self._area)])
        first, second = graph.ops("Split", [slices], ["first_slice", "second_slice"], axis=2, num_outputs=2)
        rows = self._layer(self._centred(first), NAME, self._sum, lambda: self._read(f"{NAME}.bias"))
        # int64 (k, 1): patches whose slices differ; a still has none, so nothing multiplies
        difference = op("ReduceMax", [op("BitwiseXor", [first, second]), graph.ints(1, 2, 3)], keepdims=0)
        places = op("Transpose", [op("NonZero", [op("Cast", [difference], to=TensorProto.BOOL)])], "changing_patches")
        before, after = (self._centred(op("GatherND", [part, places])) for part in (first, second))  # (k, 3, 1, area)
        change = self._layer(op("Sub", [after, before]), CHANGE, self._second, self._no_bias)
        return op("ScatterND", [rows, places, change], "patch_embed", reduction="add")

    def _centred(self, values: str) -> str:
        """uint8 to float32 in -1 .. 1."""
        graph = self._graph
        return graph.op("DequantizeLinear", [values, graph.scalar(1 / MIDDLE), graph.scalar(MIDDLE, np.uint8)])

    def _layer(self, values: str, name: str, weight: Tensor, bias: Tensor) -> str:
        """(patches, 3, 1, area) to (patches, hidden)."""
        width = 3 * self._area
        rows = self._graph.op("Reshape", [values, self._graph.ints(0, width)])
        return FP32(self._graph, rows, LinearSource(name, width, self._hidden, weight, bias))

    def _sum(self) -> NDArray[np.float32]:
        return still_weight(self._read, self._tower)

    def _second(self) -> NDArray[np.float32]:
        weight = self._read(f"{NAME}.weight").reshape(self._hidden, 3, 2, self._area)
        return weight[:, :, 1].reshape(self._hidden, -1)

    def _no_bias(self) -> NDArray[np.float32]:
        return np.zeros(self._hidden, np.float32)
