"""The vision tower as one ONNX graph for one picture size, for the compilers of accelerators.

Rockchip's, Qualcomm's, Intel's, Apple's and Google's compilers refuse the graph of every size: it has a loop, functions
and int64 values. They all take this one (docs/accelerators.md). The patches are float32, because one compiler ends
without an error on bytes and another one computes them wrongly.
"""

from pathlib import Path
from typing import Protocol

from onnx import TensorProto, ValueInfoProto, helper

from contract.preprocessing import ImageProcessing
from export.graph.builder import Builder, Dialect
from export.graph.data_file import DataFile
from export.graph.tower import Read, Tower
from export.static.grid import Grid
from export.static.layers import StaticLayers

DIALECT = Dialect(opset=17, ir_version=8, has_contrib=False)
INPUT = "patches"


class StaticWriter(Protocol):
    """The part of export.families.Family that a static graph needs."""

    def static(
        self, graph: Builder, layers: StaticLayers, tower: Tower, grid: Grid, patches: str
    ) -> tuple[str, list[str]]: ...

    def for_bytes(self, read: Read, image: ImageProcessing) -> Read: ...


def still_width(tower: Tower) -> int:
    """Values of a patch of a still picture: one slice of time."""
    return 3 * tower.patch_size**2


def write_static_graph(
    family: StaticWriter,
    tower: Tower,
    read: Read,
    image: ImageProcessing,
    grid: Grid,
    path: Path,
    data: DataFile,
    *,
    has_erf: bool = True,
    is_factored: bool = False,
) -> int:
    """Write the graph of one size to `path`, and its weights to `data` where no other graph has done so; returns the
    number of nodes.

    Input: patches float32 (1, num_patches, 3 * patch_size^2), (byte - 128) / 128 in merge-block order. Outputs: image
    and deep0, deep1, ..., float32 (1, num_patches / merge_size^2, out_hidden).

    Args:
        read: gives a tower tensor by its tower-local name, float32, before the normalisation is folded in.
        has_erf, is_factored: as in StaticLayers.

    Raises:
        BundleError: the family has no static graph, or its tower uses an activation that static graphs lack.
        OSError: the disk is full.
    """
    graph = Builder(DIALECT)
    layers = StaticLayers(graph, tower, family.for_bytes(read, image), has_erf=has_erf, is_factored=is_factored)
    main, levels = family.static(graph, layers, tower, grid, INPUT)
    rows = grid.num_patches // tower.merge_size**2

    def value(name: str, *shape: int) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [value(INPUT, 1, grid.num_patches, still_width(tower))]
    outputs = [value(name, 1, rows, tower.out_hidden_size) for name in (main, *levels)]
    graph.save(path, inputs, outputs, data=data)
    return graph.num_nodes()
