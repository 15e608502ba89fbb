"""This project's Encoder on a bundle."""

from pathlib import Path

from benchmarks.edge import weights
from benchmarks.edge.engines import Grid, Patches, Rows
from contract.manifest import INTEGERS
from edge_runtime import Encoder
from edge_runtime.items.item import Item
from edge_runtime.tower.kernels import library


class Ours:
    def __init__(self, folder: Path, threads: int, use_kernels: bool) -> None:
        self.file_bytes = sum(path.stat().st_size for path in folder.glob("vision.onnx*"))
        self._encoder = Encoder.from_bundle(folder, threads=threads, use_kernels=use_kernels)

    def lay_out(self, patches: Patches, grid: Grid) -> Item:
        return Item(patches, grid, (0.0,) if grid[0] > 1 else ())

    def __call__(self, item: Item) -> tuple[Rows, Rows]:
        embeddings = self._encoder.encode([item])
        return embeddings.image_embeds, embeddings.deepstack_embeds


def load(cache: Path, depth: int, threads: int, variant: str) -> Ours:
    """
    Raises:
        SystemExit: integers are to run on kernels, and there are none for this processor.
    """
    use_kernels = not variant.endswith("portable")
    if variant in INTEGERS and library() is None:
        raise SystemExit(f"{variant} needs kernels, none is built for this processor: run python -m kernels.build")
    return Ours(weights.bundle_folder(cache, depth, variant), threads, use_kernels)
