"""The tower on an accelerator: a graph for each picture size that the bundle has for it.

Pictures of other sizes, and videos, run on the processor (tower/encoder.py).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput, shown
from contract.static_graph import WEIGHTS, StaticGraph
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.tower.accelerators.grid_graph import GridGraph, Opening
from edge_runtime.tower.accelerators.providers import find_provider
from edge_runtime.tower.still import is_still, still_rows

Grid = tuple[int, int, int]


class StaticTower:
    """Graphs by grid. Safe to share between threads where the vendor's runtime is."""

    def __init__(self, name: str, graphs: Mapping[Grid, GridGraph], bundle: Bundle) -> None:
        """
        Args:
            name: the provider's and the precision, which answers and metrics carry.
            graphs: by the grid of their pictures, in patches.
        """
        self.name, self._graphs = name, graphs
        card = bundle.manifest.card
        self._patch, self._levels, self._width = card.patch_size, card.num_deepstack_levels, card.hidden_size
        self._rows_per_patch = card.merge_size**2

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width in pixels of each picture size."""
        return tuple((height * self._patch, width * self._patch) for _, height, width in self._graphs)

    def takes(self, item: Item) -> bool:
        """Whether an item runs here: a still picture of one of the sizes."""
        return (
            item.tiles_thw is None and item.grid_thw in self._graphs and not item.timestamps and is_still(item.patches)
        )

    def label(self, item: Item) -> str:
        """What ran for an item: provider, precision and the picture's size."""
        _, height, width = item.grid_thw
        return f"{self.name} {height * self._patch}x{width * self._patch}"

    def no_rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What `run` gives, of no items."""
        return np.zeros((0, self._width), np.float32), np.zeros((self._levels, 0, self._width), np.float32)

    def run(self, item: Item) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Main rows (n, H) and levels (L, n, H) of an item that it takes.

        Raises:
            BundleError: the file gives other shapes than the bundle says.
        """
        main, *levels = (
            rows.reshape(-1, rows.shape[-1]) for rows in self._graphs[item.grid_thw].run(still_rows(item.patches))
        )
        shape = (len(item.patches) // self._rows_per_patch, self._width)
        if len(levels) != self._levels or any(rows.shape != shape for rows in (main, *levels)):
            found = [list(rows.shape) for rows in (main, *levels)]
            raise BundleError(
                f"the graph of {self.label(item)} gives {found}, {1 + self._levels} times {list(shape)} is expected: "
                "export the bundle again"
            )
        deepstack = np.stack(levels) if levels else np.zeros((0, *shape), np.float32)
        return main.astype(np.float32, copy=False), deepstack.astype(np.float32, copy=False)


def open_static_tower(name: str, bundle: Bundle, threads: int, allow_cpu_nodes: bool) -> StaticTower | None:
    """The tower on an accelerator; None where `name` is none of providers.PROVIDERS.

    Raises:
        InvalidInput: the bundle has no file for it, or the accelerator leaves nodes on the processor.
        MissingExtra, BundleError: as Provider.open.
    """
    found = find_provider(name)
    if found is None:
        return None
    provider, device = found
    held = bundle.manifest.static
    target = next((one for one in provider.targets if any(graph.target == one for graph in held)), None)
    if target is None:
        own = ", ".join(dict.fromkeys(graph.target for graph in held)) or "no accelerator"
        raise InvalidInput(
            f"provider is {shown(name)}, this bundle has graphs for {own}: export it again with --static SIZES --target "
            f"{provider.targets[0]}"
        )
    chosen = [graph for graph in held if graph.target == target]
    graphs = {
        graph.grid_thw: provider.open(_opening(graph, bundle, device, threads, allow_cpu_nodes)) for graph in chosen
    }
    bundle.check_unchanged()
    return StaticTower(f"{name} {chosen[0].precision}", graphs, bundle)


def _opening(graph: StaticGraph, bundle: Bundle, device: str, threads: int, allow_cpu_nodes: bool) -> Opening:
    return Opening(
        bundle.folder / graph.file,
        bundle.manifest.card.num_deepstack_levels,
        graph.precision,
        device,
        threads,
        allow_cpu_nodes,
        bundle.folder / WEIGHTS,
        graph.chip,
    )
