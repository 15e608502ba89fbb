"""What is timed: every engine runs one item of the tower and gives its embeddings and levels.

An engine is made in a worker process of its own, from the settings its makers recommend for latency on a CPU. Its
constructor is the load that is reported; what has to be made once before it, such as a bundle, is `prepare`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.edge import weights

Grid = tuple[int, int, int]
Rows = NDArray[np.float32]


class Engine(Protocol):
    """One loaded tower. file_bytes is what lies on disk for it; takes_bytes tells uint8 patches from normalised ones."""

    file_bytes: int
    takes_bytes: bool

    def __call__(self, pixels: NDArray[Any], grid: Grid) -> tuple[Rows, Rows]:
        """uint8 or float32 (patches, width) to main float32 (N, H) and levels float32 (L, N, H)."""
        ...


class Ours:
    """This project's Encoder on a bundle."""

    takes_bytes = True

    def __init__(self, cache: Path, depth: int, threads: int, precision: str, use_kernels: bool = True) -> None:
        from edge_runtime import Encoder
        from edge_runtime.kernels import library

        if precision == "int8" and use_kernels and library() is None:
            raise SystemExit("int8 with kernels: none is built for this processor, see python -m kernels.build")
        folder = weights.bundle(cache, depth, precision)
        self.file_bytes = sum(path.stat().st_size for path in folder.glob("vision.onnx*"))
        self._encoder = Encoder.from_bundle(folder, threads=threads, use_kernels=use_kernels)

    def __call__(self, pixels: NDArray[np.uint8], grid: Grid) -> tuple[Rows, Rows]:
        from edge_runtime.items import Item

        embeddings = self._encoder.encode([Item(pixels, grid, (0.0,) if grid[0] > 1 else ())])
        return embeddings.image_embeds, embeddings.deepstack_embeds


def load_tower(cache: Path, depth: int) -> Any:
    """transformers' vision tower in fp32."""
    from export.checkpoint import Checkpoint
    from export.oracle import Oracle

    checkpoint = Checkpoint(weights.checkpoint(cache, depth))
    return Oracle(checkpoint.config, checkpoint.image, list(checkpoint.tower_shapes), checkpoint.tower_tensor)._tower


class Torch:
    """transformers with scaled_dot_product_attention; compiled block by block, once a size, where asked."""

    takes_bytes = False

    def __init__(self, cache: Path, depth: int, threads: int, dtype: str, is_compiled: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        self._dtype = getattr(torch, dtype)
        self._tower = load_tower(cache, depth).to(self._dtype)
        self.file_bytes = weights.checkpoint(cache, depth).joinpath("model.safetensors").stat().st_size
        if is_compiled:
            for block in self._tower.blocks:
                block.compile(dynamic=False)

    def __call__(self, pixels: Rows, grid: Grid) -> tuple[Rows, Rows]:
        import torch

        with torch.inference_mode():
            out = self._tower(torch.from_numpy(pixels).to(self._dtype), grid_thw=torch.tensor([grid]))
        levels = torch.stack([level.float() for level in out.deepstack_features])
        return out.pooler_output.float().numpy(), levels.numpy()


def _openvino(cache: Path, depth: int, threads: int, kind: str) -> Engine:
    from benchmarks.edge.openvino_engine import OpenVino

    return OpenVino(cache, depth, threads, kind)


def _llama(cache: Path, depth: int, threads: int, kind: str) -> Engine:
    raise SystemExit(f"llama.cpp {kind}: not built, this benchmark has no build of mtmd yet")


Make = Callable[[Path, int, int], Engine]
ENGINES: dict[str, Make] = {
    "transformers fp32": partial(Torch, dtype="float32"),
    "transformers bf16": partial(Torch, dtype="bfloat16"),
    "torch.compile fp32": partial(Torch, dtype="float32", is_compiled=True),
    "OpenVINO fp32": partial(_openvino, kind="fp32"),
    "OpenVINO bf16": partial(_openvino, kind="bf16"),
    "OpenVINO int8": partial(_openvino, kind="int8"),
    "llama.cpp f16": partial(_llama, kind="f16"),
    "llama.cpp q8_0": partial(_llama, kind="q8_0"),
    "llama.cpp Q4_K": partial(_llama, kind="Q4_K"),
    "ours fp32": partial(Ours, precision="fp32"),
    "ours fp16": partial(Ours, precision="fp16"),
    "ours int8": partial(Ours, precision="int8"),
    "ours int8 portable": partial(Ours, precision="int8", use_kernels=False),
    "ours int4": partial(Ours, precision="int4"),
}
REFERENCE = "transformers fp32"
