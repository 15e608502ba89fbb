"""The bundle's graph of every picture size, on onnxruntime.

Where an accelerator runs the usual pictures, nobody needs this graph until a picture of another size comes; it opens
then.
"""

import threading

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.codecs import native
from contract.errors import BundleError
from edge_runtime.bundle import Bundle
from edge_runtime.tower import kernels
from edge_runtime.tower.session import open_session

NAMES = ["image_embeds", "deepstack_embeds"]


class AnySize:
    """A graph that opens at its first run. Safe to share between threads."""

    def __init__(self, bundle: Bundle, provider: str, threads: int, *, use_kernels: bool, low_memory: bool) -> None:
        """Arguments are those of Encoder.from_bundle."""
        self.provider = provider
        self._bundle, self._threads, self._lock = bundle, threads, threading.Lock()
        self._use_kernels, self._low_memory = use_kernels, low_memory
        self._session: onnxruntime.InferenceSession | None = None
        if use_kernels:  # else those of another encoder stay in use: the bytes are the same
            native.load(kernels.library())  # the codec of the rows uses it, too

    def open(self) -> onnxruntime.InferenceSession:
        """The open session.

        Raises:
            BundleError: onnxruntime cannot load the graph, or somebody has changed a file.
            InvalidInput: the provider does not bind.
        """
        with self._lock:
            if self._session is None:
                try:
                    session = open_session(
                        self._bundle,
                        provider=self.provider,
                        threads=self._threads,
                        use_kernels=self._use_kernels,
                        low_memory=self._low_memory,
                    )
                except BundleError:
                    self._bundle.check_unchanged()  # a damaged file explains more than what onnxruntime says of it
                    raise
                self._bundle.check_unchanged()
                self._session = session
            return self._session

    def run(
        self, patches: NDArray[np.uint8], grid_thw: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Main rows (N, H) and levels (L, N, H).

        Args:
            patches: uint8 (p, width of a patch).
            grid_thw: int64 (k, 3).

        Raises:
            BundleError, InvalidInput: as `open`.
        """
        main, deepstack = self.open().run(NAMES, {"patches": patches, "grid_thw": grid_thw})
        return main, deepstack
