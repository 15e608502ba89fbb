"""The vision tower on onnxruntime: patches in, embeddings and deepstack levels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.tower.accelerators.providers import find_provider
from edge_runtime.tower.accelerators.static_tower import StaticTower, open_static_tower
from edge_runtime.tower.any_size import AnySize
from edge_runtime.tower.batches import batches
from edge_runtime.tower.equal_frames import distinct_frames, repeated_rows
from edge_runtime.tower.session import CPU, check_provider

CPU_RUNNER = "cpu"  # what Embeddings.ran says of the processor
Rows = tuple[NDArray[np.float32], NDArray[np.float32]]  # main (N, H), deepstack (L, N, H)
MAX_PATCHES = 1 << 14  # four pictures of 1024 x 1024, 24 MiB of pixels


@dataclass(frozen=True)
class Embeddings:
    """The tower's rows of some items.

    Attributes:
        image_embeds: float32 (N, H), rows in the order of the items.
        deepstack_embeds: float32 (L, N, H).
        grid_thw: int64 (items, 3) in patches.
        num_rows: rows of each item.
        ran: what ran each item: "cpu", the name of another provider, or an accelerator, its precision and
            the picture's size.
    """

    image_embeds: NDArray[np.float32]
    deepstack_embeds: NDArray[np.float32]
    grid_thw: NDArray[np.int64]
    num_rows: tuple[int, ...]
    ran: tuple[str, ...] = ()

    def by_item(self) -> list[Rows]:
        """The rows of each item, without a copy."""
        ends = list(accumulate(self.num_rows))
        places = [slice(end - count, end) for end, count in zip(ends, self.num_rows, strict=True)]
        return [(self.image_embeds[rows], self.deepstack_embeds[:, rows]) for rows in places]


class Encoder:
    """A tower ready to run. Safe to share between threads.

    Attributes:
        bundle: the opened bundle.
        sizes: height and width in pixels of the pictures that run on an accelerator; empty where none runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph: AnySize,
        max_patches: int = MAX_PATCHES,
        accelerator: StaticTower | None = None,
    ) -> None:
        self.bundle = bundle
        self._graph, self._max_patches, self._accelerator = graph, max_patches, accelerator
        self.sizes = () if accelerator is None else accelerator.sizes

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle | str | PathLike[str],
        *,
        threads: int = 0,
        provider: str = CPU,
        max_patches: int = MAX_PATCHES,
        use_kernels: bool = True,
        low_memory: bool = False,
        allow_cpu_nodes: bool = False,
    ) -> "Encoder":
        """Open a bundle.

        Args:
            bundle: the folder that `python -m export.vision` wrote, or a Bundle.
            threads: cores for one call; 0 takes all.
            provider: an onnxruntime execution provider by name, or an accelerator of tower.accelerators.providers. A
                picture of one of an accelerator's sizes runs there, any other item on the processor.
            max_patches: the most patches of 16 x 16 pixels in one call of the tower (1.5 KiB of input each); the
                encoder splits more into several calls, with the same result.
            use_kernels: on the CPU, layers run on the operators of edge_runtime.tower.kernels where this processor has
                them; False takes onnxruntime's own.
            low_memory: the weights stay in the mapped file, which the system may drop and share; without it onnxruntime
                copies them into the order that suits this processor best. Either way the peak is about the weights
                once.
            allow_cpu_nodes: an accelerator may leave nodes of its graphs on the processor; without it that is an error.

        Raises:
            BundleError: the bundle is damaged, or a runtime cannot load its graph.
            InvalidInput: this onnxruntime lacks the provider or cannot bind it, the bundle has no graph for the
                accelerator, threads is below 0, or max_patches is below 1.
            MissingExtra: the accelerator's runtime is not installed.
        """
        if max_patches < 1:
            raise InvalidInput(f"max_patches is {max_patches}, at least 1 is expected")
        check_provider(provider if find_provider(provider) is None else CPU, threads)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        accelerator = open_static_tower(provider, opened, threads, allow_cpu_nodes)
        on = provider if accelerator is None else CPU
        graph = AnySize(opened, on, threads, use_kernels=use_kernels, low_memory=low_memory)
        if accelerator is None:
            graph.open()
        return cls(opened, graph, max_patches, accelerator)

    def runner(self, item: Item) -> str:
        """What runs the tower for an item: "cpu", the name of another provider, or an accelerator, its precision and
        the picture's size."""
        if self._accelerator is not None and self._accelerator.takes(item):
            return self._accelerator.label(item)
        return CPU_RUNNER if self._graph.provider == CPU else self._graph.provider

    def encode(self, items: Sequence[Item]) -> Embeddings:
        """Encode pictures and videos of any sizes; no items give no rows."""
        card = self.bundle.manifest.card
        grids = np.array([item.grid_thw for item in items], np.int64).reshape(-1, 3)
        main, deepstack = self._run(items)
        main = families.find(card.family).arrange(main, items, self.bundle)
        if not card.num_deepstack_levels:  # arranged rows are more or fewer than the tower's
            deepstack = np.zeros((0, *main.shape), np.float32)
        num_rows, ran = tuple(item.num_rows(card) for item in items), tuple(map(self.runner, items))
        return Embeddings(main, deepstack, grids, num_rows, ran)

    def _run(self, items: Sequence[Item]) -> Rows:
        """Main (N, H) and deepstack (L, N, H) of the items: each on the accelerator where it takes it, else with the
        others on the processor."""
        accelerator = self._accelerator
        if accelerator is None or not (taken := [accelerator.takes(item) for item in items]):
            return self._any_size(items)
        others = [item for item, is_taken in zip(items, taken, strict=True) if not is_taken]
        if len(others) == len(items):
            return self._any_size(items)
        card = self.bundle.manifest.card
        ends = list(accumulate(item.num_rows(card) for item in others))
        main, deepstack = self._any_size(others) if others else accelerator.no_rows()
        found, left = list[Rows](), iter(zip([0, *ends], ends, strict=False))
        for item, is_taken in zip(items, taken, strict=True):
            if is_taken:
                found.append(accelerator.run(item))
            else:
                start, end = next(left)
                found.append((main[start:end], deepstack[:, start:end]))
        return np.concatenate([rows for rows, _ in found]), np.concatenate([rows for _, rows in found], axis=1)

    def _any_size(self, items: Sequence[Item]) -> Rows:
        """Main (N, H) and deepstack (L, N, H) of the items, in as many calls as the budget needs; the tower does not
        compute a frame again that equals the one before it."""
        distinct = [distinct_frames(item) for item in items]
        main, deepstack = self._call([item for item, _ in distinct])
        if all(source is None for _, source in distinct):
            return main, deepstack
        rows = repeated_rows(distinct, len(main))
        return main[rows], deepstack[:, rows]

    def _call(self, items: Sequence[Item]) -> Rows:
        card = self.bundle.manifest.card
        main = [np.zeros((0, card.hidden_size), np.float32)]
        deepstack = [np.zeros((card.num_deepstack_levels, 0, card.hidden_size), np.float32)]
        for patches, grid_thw in batches(items, self._max_patches):
            outputs = self._graph.run(patches, grid_thw)
            main.append(outputs[0])
            deepstack.append(outputs[1])
        if len(main) == 2:  # one call: nothing to join
            return main[1], deepstack[1]
        return np.concatenate(main), np.concatenate(deepstack, axis=1)
