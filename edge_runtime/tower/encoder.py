"""The vision tower on onnxruntime: patches in, embeddings and deepstack levels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput
from edge_runtime.bundle import Bundle
from edge_runtime.items.item import Item
from edge_runtime.reuse.embedding_cache import EmbeddingCache, content_key
from edge_runtime.reuse.embedding_files import Rows
from edge_runtime.tower.batches import batches
from edge_runtime.tower.mapped_pages import given_back
from edge_runtime.tower.session_options import session_options

CPU = "CPUExecutionProvider"
MAX_PATCHES = 1 << 14  # four pictures of 1024 x 1024, 24 MiB of pixels


@dataclass(frozen=True)
class Embeddings:
    """What the tower says about some items.

    Attributes:
        image_embeds: float32 (N, H), rows in the order of the items.
        deepstack_embeds: float32 (L, N, H).
        grid_thw: int64 (items, 3) in patches.
        num_encoded: items the tower ran on; the others were in the cache, or equal to another of the call.
    """

    image_embeds: NDArray[np.float32]
    deepstack_embeds: NDArray[np.float32]
    grid_thw: NDArray[np.int64]
    num_encoded: int = 0


class Encoder:
    """A tower ready to run. Safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        session: onnxruntime.InferenceSession,
        max_patches: int = MAX_PATCHES,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.bundle, self.cache = bundle, cache
        self._session, self._max_patches = session, max_patches

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle | str | PathLike[str],
        *,
        threads: int = 0,
        provider: str = CPU,
        max_patches: int = MAX_PATCHES,
        cache: EmbeddingCache | None = None,
        use_kernels: bool = True,
        low_memory: bool = False,
    ) -> "Encoder":
        """Open a bundle.

        Args:
            bundle: the folder that `python -m export.vision` wrote, or a Bundle.
            threads: cores for one call; 0 takes all.
            provider: an onnxruntime execution provider by name.
            max_patches: most patches of 16 x 16 pixels in one call of the tower (1.5 KiB of input each); more are encoded
                in several calls, with the same result.
            cache: finds what was encoded before; None encodes everything.
            use_kernels: on the CPU, layers run on the operators of edge_runtime.tower.kernels where this processor has them;
                False takes onnxruntime's own.
            low_memory: weights stay in the mapped file, which the system may drop and share, instead of being copied
                into the order this processor likes best. Either way the peak is about the weights once.

        Raises:
            BundleError: the bundle is damaged, or onnxruntime cannot load its graph.
            InvalidInput: the provider is not in this onnxruntime, or did not bind; threads is below 0, max_patches below 1.
        """
        if threads < 0:
            raise InvalidInput(f"threads is {threads}, 0 (all cores) or more is expected")
        if max_patches < 1:
            raise InvalidInput(f"max_patches is {max_patches}, at least 1 is expected")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise InvalidInput(f"provider is {provider!r}, this onnxruntime has {', '.join(available)}")
        options = session_options(threads, use_kernels=use_kernels and provider == CPU, low_memory=low_memory)
        try:
            with given_back(opened.weights):
                session = onnxruntime.InferenceSession(str(opened.graph), options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions have no public root
            raise BundleError(
                f"{opened.graph} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}"
            ) from error
        if session.get_providers()[0] != provider:
            raise InvalidInput(
                f"provider {provider!r} did not bind, onnxruntime fell back to {session.get_providers()[0]}"
            )
        return cls(opened, session, max_patches, cache)

    def encode(self, items: Sequence[Item]) -> Embeddings:
        """Encode pictures and videos of any sizes; no items give no rows."""
        if self.cache is None:
            return Embeddings(*self._run(items), _grids(items), len(items))
        keys = [content_key(item, self.bundle) for item in items]
        known = {key: self.cache.get(key) for key in keys}
        missing = {key: item for key, item in zip(keys, items, strict=True) if known[key] is None}
        main, deepstack = self._run(list(missing.values()))
        start = 0
        for key, item in missing.items():
            end = start + item.num_rows(self.bundle.manifest.card)
            known[key] = main[start:end], deepstack[:, start:end]
            self.cache.put(key, (main[start:end], deepstack[:, start:end]))
            start = end
        empty = self._run([])
        found = [rows for key in keys if (rows := known[key]) is not None]
        return Embeddings(
            np.concatenate([empty[0], *[rows[0] for rows in found]]),
            np.concatenate([empty[1], *[rows[1] for rows in found]], axis=1),
            _grids(items),
            len(missing),
        )

    def _run(self, items: Sequence[Item]) -> Rows:
        """Main (N, H) and deepstack (L, N, H) of the items, in as many calls as the budget asks for."""
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


def _grids(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([item.grid_thw for item in items], np.int64).reshape(-1, 3)
