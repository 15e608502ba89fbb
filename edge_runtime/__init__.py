"""The part that runs on the device: pictures and questions in, embeddings out, answers streamed back. No torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contract.sampling import Sampling
from edge_runtime.bundle import Bundle
from edge_runtime.media.fetch import Fetcher
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta, Request
from edge_runtime.reuse.embedding_cache import EmbeddingCache
from edge_runtime.tower.encoder import Embeddings, Encoder

if TYPE_CHECKING:
    from edge_runtime.clients.async_grpc_client import AsyncGrpcClient
    from edge_runtime.clients.async_http_client import AsyncHttpClient
    from edge_runtime.clients.connection import Tls
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

__all__ = [
    "AsyncGrpcClient",
    "AsyncHttpClient",
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
    "Tls",
]


CLIENTS = {
    "AsyncGrpcClient": "async_grpc_client",
    "AsyncHttpClient": "async_http_client",
    "GrpcClient": "grpc_client",
    "HttpClient": "http_client",
    "Tls": "connection",
}


def __getattr__(name: str) -> Any:
    """The clients need the extra `client`, the rest does not."""
    if name not in CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"edge_runtime.clients.{CLIENTS[name]}"), name)
