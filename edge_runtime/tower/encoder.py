"""The vision tower on onnxruntime: patches in, embeddings and deepstack levels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from os import PathLike

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.codecs import native
from contract.errors import InvalidInput
from edge_runtime import families
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.tower import kernels
from edge_runtime.tower.batches import batches
from edge_runtime.tower.equal_frames import distinct_frames, repeated_rows
from edge_runtime.tower.session import CPU, check_provider, open_session

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
    """

    image_embeds: NDArray[np.float32]
    deepstack_embeds: NDArray[np.float32]
    grid_thw: NDArray[np.int64]
    num_rows: tuple[int, ...]

    def by_item(self) -> list[Rows]:
        """The rows of each item, without a copy."""
        ends = list(accumulate(self.num_rows))
        places = [slice(end - count, end) for end, count in zip(ends, self.num_rows, strict=True)]
        return [(self.image_embeds[rows], self.deepstack_embeds[:, rows]) for rows in places]


class Encoder:
    """A tower ready to run. Safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        session: onnxruntime.InferenceSession,
        max_patches: int = MAX_PATCHES,
    ) -> None:
        self.bundle = bundle
        self._session, self._max_patches = session, max_patches

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
    ) -> "Encoder":
        """Open a bundle.

        Args:
            bundle: the folder that `python -m export.vision` wrote, or a Bundle.
            threads: cores for one call; 0 takes all.
            provider: an onnxruntime execution provider by name.
            max_patches: the most patches of 16 x 16 pixels in one call of the tower (1.5 KiB of input each); the
                encoder splits more into several calls, with the same result.
            use_kernels: on the CPU, layers run on the operators of edge_runtime.tower.kernels where this processor has
                them; False takes onnxruntime's own.
            low_memory: the weights stay in the mapped file, which the system may drop and share; without it onnxruntime
                copies them into the order that suits this processor best. Either way the peak is about the weights
                once.

        Raises:
            BundleError: the bundle is damaged, or onnxruntime cannot load its graph.
            InvalidInput: this onnxruntime lacks the provider or cannot bind it, threads is below 0, or max_patches is
                below 1.
        """
        if max_patches < 1:
            raise InvalidInput(f"max_patches is {max_patches}, at least 1 is expected")
        check_provider(provider, threads)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if use_kernels:  # else those of another encoder stay in use: the bytes are the same
            native.load(kernels.library())  # the codec of the rows uses it, too
        session = open_session(
            opened, provider=provider, threads=threads, use_kernels=use_kernels, low_memory=low_memory
        )
        opened.check_unchanged()
        return cls(opened, session, max_patches)

    def encode(self, items: Sequence[Item]) -> Embeddings:
        """Encode pictures and videos of any sizes; no items give no rows."""
        card = self.bundle.manifest.card
        grids = np.array([item.grid_thw for item in items], np.int64).reshape(-1, 3)
        main, deepstack = self._run(items)
        main = families.find(card.family).arrange(main, items, self.bundle)
        if not card.num_deepstack_levels:  # arranged rows are more or fewer than the tower's
            deepstack = np.zeros((0, *main.shape), np.float32)
        return Embeddings(main, deepstack, grids, tuple(item.num_rows(card) for item in items))

    def _run(self, items: Sequence[Item]) -> Rows:
        """Main (N, H) and deepstack (L, N, H) of the items, in as many calls as the budget needs; the tower does not
        compute a frame again that equals the one before it."""
        distinct = [distinct_frames(item) for item in items]
        main, deepstack = self._call([item for item, _ in distinct])
        if all(source is None for _, source in distinct):
            return main, deepstack
        rows = repeated_rows(distinct, len(main))
        return main[rows], deepstack[:, rows]

    def _call(self, items: Sequence[Item]) -> Rows:
        card, names = self.bundle.manifest.card, ["image_embeds", "deepstack_embeds"]
        main = [np.zeros((0, card.hidden_size), np.float32)]
        deepstack = [np.zeros((card.num_deepstack_levels, 0, card.hidden_size), np.float32)]
        for patches, grid_thw in batches(items, self._max_patches):
            outputs = self._session.run(names, {"patches": patches, "grid_thw": grid_thw})
            main.append(outputs[0])
            deepstack.append(outputs[1])
        if len(main) == 2:  # one call: nothing to join
            return main[1], deepstack[1]
        return np.concatenate(main), np.concatenate(deepstack, axis=1)
