"""Search a folder of pictures by text: the device embeds them once and keeps the vectors beside them.

python examples/search_pictures.py FOLDER "a red circle" --bundle bundle

With the bundle of CLIP or SigLIP that is all. The bundle of a model such as Qwen3-VL-Embedding needs its server: --triton.
"""

import argparse
from pathlib import Path

import numpy as np

from contract.embedder import NAME as EMBEDDER
from edge_runtime import Embedder, Encoder, GrpcClient, Pipeline
from edge_runtime.served_embedder import ServedEmbedder
from edge_runtime.vectors import cosines

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
VECTORS = "vectors.npz"

parser = argparse.ArgumentParser(description="Search a folder of pictures by text.")
parser.add_argument("folder", type=Path)
parser.add_argument("text")
parser.add_argument("--best", type=int, default=5, help="how many pictures to show")
parser.add_argument("--bundle", type=Path, default="bundle")
parser.add_argument("--triton", default="127.0.0.1:8001", help="gRPC address of the server, for a served model")
args = parser.parse_args()


def open_model() -> Embedder | ServedEmbedder:
    if (args.bundle / EMBEDDER).exists():
        return Embedder.from_bundle(args.bundle)
    return ServedEmbedder(Pipeline(Encoder.from_bundle(args.bundle)), GrpcClient(args.triton))


def pictures_of(model: Embedder | ServedEmbedder) -> tuple[list[str], np.ndarray]:
    """The names of the pictures and their vectors (n, W); only new pictures are embedded."""
    file, names = args.folder / VECTORS, sorted(p.name for p in args.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    known: dict[str, np.ndarray] = dict(np.load(file)) if file.is_file() else {}
    if new := [name for name in names if name not in known]:
        known |= zip(new, model.pictures([str(args.folder / name) for name in new]), strict=True)
        np.savez(file, **known)
    return names, np.stack([known[name] for name in names])


model = open_model()
names, vectors = pictures_of(model)
found = cosines(model.texts([args.text]), vectors)[0]
for place in np.argsort(-found)[: args.best]:
    print(f"{found[place]:.4f}  {names[place]}")
