"""The part that runs on the device: pictures and questions in, embeddings out, answers streamed back. No torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contract.sampling import Sampling
from edge_runtime.bundle import Bundle
from edge_runtime.embedding_cache import EmbeddingCache
from edge_runtime.encoder import Embeddings, Encoder
from edge_runtime.fetch import Fetcher
from edge_runtime.pipeline import Pipeline
from edge_runtime.request import Delta, Request

if TYPE_CHECKING:
    from edge_runtime.async_grpc_client import AsyncGrpcClient
    from edge_runtime.async_http_client import AsyncHttpClient
    from edge_runtime.connection import Tls
    from edge_runtime.grpc_client import GrpcClient
    from edge_runtime.http_client import HttpClient

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
    return getattr(import_module(f"edge_runtime.{CLIENTS[name]}"), name)
