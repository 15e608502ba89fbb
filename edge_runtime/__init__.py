"""The part that runs on the device: it turns pictures and questions into embeddings, sends them to the server, and
streams answers back. It needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contract.errors import (
    BundleError,
    DeadlineExceeded,
    EdgeVlmError,
    FingerprintMismatch,
    InvalidInput,
    MediaError,
    MissingExtra,
    NotFound,
    ServerError,
    Unavailable,
)
from contract.sampling import Sampling
from edge_runtime.ahead import made_ahead
from edge_runtime.bundle import Bundle
from edge_runtime.embedder import Embedder
from edge_runtime.items.item import Item
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.fetch import Fetcher
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.request import Delta, Request
from edge_runtime.reuse.embedding_cache import EmbeddingCache
from edge_runtime.tower.encoder import Embeddings, Encoder

if TYPE_CHECKING:
    from edge_runtime.clients.async_grpc_client import AsyncGrpcClient
    from edge_runtime.clients.async_http_client import AsyncHttpClient
    from edge_runtime.clients.connection import Tls
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

__version__ = "0.1.0"  # pyproject.toml reads it here

__all__ = [
    "AsyncGrpcClient",
    "AsyncHttpClient",
    "Bundle",
    "BundleError",
    "DeadlineExceeded",
    "Delta",
    "EdgeVlmError",
    "Embedder",
    "EmbeddingCache",
    "Embeddings",
    "Encoder",
    "Fetcher",
    "FingerprintMismatch",
    "GrpcClient",
    "HttpClient",
    "InvalidInput",
    "Item",
    "MediaError",
    "Message",
    "MissingExtra",
    "NotFound",
    "PictureOptions",
    "Pipeline",
    "Request",
    "Sampling",
    "ServerError",
    "Tls",
    "Unavailable",
    "VideoOptions",
    "made_ahead",
]


CLIENTS = {
    "AsyncGrpcClient": "async_grpc_client",
    "AsyncHttpClient": "async_http_client",
    "GrpcClient": "grpc_client",
    "HttpClient": "http_client",
    "Tls": "connection",
}


def __getattr__(name: str) -> Any:
    """Import a client when somebody asks for it: the clients need the extra `client`, the rest does not."""
    if name not in CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"edge_runtime.clients.{CLIENTS[name]}"), name)
