"""The part that runs on the device: pictures and questions in, embeddings out, answers streamed back. No torch."""

from typing import TYPE_CHECKING, Any

from contract.sampling import Sampling
from edge_runtime.bundle import Bundle
from edge_runtime.embedding_cache import EmbeddingCache
from edge_runtime.encoder import Embeddings, Encoder
from edge_runtime.fetch import Fetcher
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta, Request

if TYPE_CHECKING:
    from edge_runtime.grpc_client import GrpcClient
    from edge_runtime.http_client import HttpClient

__all__ = [
    "Bundle",
    "Delta",
    "EmbeddingCache",
    "Embeddings",
    "Encoder",
    "Fetcher",
    "GrpcClient",
    "HttpClient",
    "Pipeline",
    "Request",
    "Sampling",
]


def __getattr__(name: str) -> Any:
    """The clients need the extra `client`, the rest does not."""
    if name == "GrpcClient":
        from edge_runtime.grpc_client import GrpcClient

        return GrpcClient
    if name == "HttpClient":
        from edge_runtime.http_client import HttpClient

        return HttpClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
