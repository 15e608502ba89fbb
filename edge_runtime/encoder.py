"""The vision tower on onnxruntime: patches in, embeddings and deepstack levels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput
from edge_runtime.bundle import Bundle
from edge_runtime.items import Item

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Embeddings:
    """What the tower says about some items.

    Attributes:
        image_embeds: float32 (N, H), rows in the order of the items.
        deepstack_embeds: float32 (L, N, H).
        grid_thw: int64 (items, 3) in patches.
    """

    image_embeds: NDArray[np.float32]
    deepstack_embeds: NDArray[np.float32]
    grid_thw: NDArray[np.int64]


class Encoder:
    """A tower ready to run. Safe to share between threads."""

    def __init__(self, bundle: Bundle, session: onnxruntime.InferenceSession) -> None:
        self.bundle = bundle
        self._session = session

    @classmethod
    def from_bundle(cls, bundle: Bundle | str | PathLike[str], *, threads: int = 0, provider: str = CPU) -> "Encoder":
        """Open a bundle.

        Args:
            bundle: the folder that `python -m export.vision` wrote, or a Bundle.
            threads: cores for one call; 0 takes all.
            provider: an onnxruntime execution provider by name.

        Raises:
            BundleError: the bundle is damaged, or onnxruntime cannot load its graph.
            InvalidInput: the provider is not in this onnxruntime, or did not bind.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise InvalidInput(f"provider is {provider!r}, this onnxruntime has {', '.join(available)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(opened.graph), options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions have no public root
            raise BundleError(
                f"{opened.graph} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}"
            ) from error
        if session.get_providers()[0] != provider:
            raise InvalidInput(
                f"provider {provider!r} did not bind, onnxruntime fell back to {session.get_providers()[0]}"
            )
        return cls(opened, session)

    def encode(self, items: Sequence[Item]) -> Embeddings:
        """Encode pictures and videos of any sizes in one call; no items give no rows."""
        card = self.bundle.manifest.card
        if not items:
            empty = np.zeros((0, card.hidden_size), np.float32)
            levels = np.zeros((card.num_deepstack_levels, 0, card.hidden_size), np.float32)
            return Embeddings(empty, levels, np.zeros((0, 3), np.int64))
        grid_thw = np.array([item.grid_thw for item in items], np.int64)
        pixel_values = np.concatenate([item.pixel_values for item in items])  # (patches, patch_width)
        names = ["image_embeds", "deepstack_embeds"]
        main, deepstack = self._session.run(names, {"pixel_values": pixel_values, "grid_thw": grid_thw})
        return Embeddings(main, deepstack, grid_thw)
