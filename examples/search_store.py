"""Search pictures by text in a vector store, which `python -m edge_runtime embed *.jpg --out pictures.db` filled.

python examples/search_store.py pictures.db "a red circle" --bundle bundle

It takes the bundle that filled the store. That of a model such as Qwen3-VL-Embedding needs its server: --triton.
"""

import argparse
from pathlib import Path

from contract.embedder import NAME as EMBEDDER
from edge_runtime import Embedder, Encoder, GrpcClient, Pipeline
from edge_runtime.served_embedder import ServedEmbedder
from edge_runtime.vector_store import VectorStore

parser = argparse.ArgumentParser(description="Search pictures by text in a vector store.")
parser.add_argument("store", type=Path)
parser.add_argument("text")
parser.add_argument("--best", type=int, default=5, help="how many pictures to show")
parser.add_argument("--bundle", type=Path, default="bundle")
parser.add_argument("--triton", default="127.0.0.1:8001", help="gRPC address of the server, for a served model")
args = parser.parse_args()


def open_model() -> Embedder | ServedEmbedder:
    if (args.bundle / EMBEDDER).exists():
        return Embedder.from_bundle(args.bundle)
    return ServedEmbedder(Pipeline(Encoder.from_bundle(args.bundle)), GrpcClient(args.triton))


(vector,) = open_model().texts([args.text])
with VectorStore(args.store) as store:
    for name, cosine in store.nearest(vector, args.best):
        print(f"{cosine:.4f}  {name}")
