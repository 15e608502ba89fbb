"""Vectors and scores from a language model behind a server: the device encodes the pictures, the server does the rest."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.tasks import EMBED, SCORE, no_output
from edge_runtime.media.picture import Picture
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.prompts.retrieval import Part, embedding_messages, rerank_messages
from edge_runtime.vectors import Vectors, shortened

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

AT_ONCE = 4  # requests: while one goes through the tower, others are on the way


class ServedEmbedder:
    """Embeds pictures and texts with a served model, and scores documents with a served reranker.

    Args:
        pipeline: encodes the pictures; its bundle is of the same checkpoint as the server's model.
        client: speaks to the server; whoever opened it closes it.
        instruction: what the embeddings are for; None takes the model's usual words.
    """

    def __init__(self, pipeline: Pipeline, client: "GrpcClient | HttpClient", instruction: str | None = None) -> None:
        self._pipeline, self._client, self._instruction = pipeline, client, instruction

    def pictures(self, pictures: Sequence[Picture], dimensions: int | None = None) -> Vectors:
        """The unit vectors of pictures, float32 (n, dimensions); a picture is a path, bytes, a PIL image or an array.

        Args:
            dimensions: how many of the first values to keep; None keeps all.

        Raises:
            InvalidInput: the server's model embeds nothing, or dimensions is out of range.
            MediaError: a picture cannot be decoded.
            Unavailable, DeadlineExceeded, ServerError: the server says so, or is away.
        """
        return self._vectors([[_picture(picture)] for picture in pictures], dimensions)

    def texts(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
        """The unit vectors of texts, float32 (n, dimensions); see `pictures`."""
        return self._vectors([[{"type": "text", "text": text}] for text in texts], dimensions)

    def scores(self, query: str, pictures: Sequence[Picture]) -> list[float]:
        """How likely each picture answers the query, by a served reranker, 0 to 1; see `pictures` for the errors."""
        asked: list[Part] = [{"type": "text", "text": query}]
        chats = [rerank_messages(asked, [_picture(picture)], self._instruction) for picture in pictures]
        return [values[0] for values in self._all(chats, SCORE)]

    def _vectors(self, contents: list[list[Part]], dimensions: int | None) -> Vectors:
        found = self._all([embedding_messages(parts, self._instruction) for parts in contents], EMBED)
        width = self._pipeline.encoder.bundle.manifest.card.hidden_size
        return shortened(np.array(found, np.float32).reshape(-1, width), dimensions)

    def _all(self, chats: list[list[Message]], task: str) -> list[tuple[float, ...]]:
        with ThreadPoolExecutor(AT_ONCE, "embed") as threads:
            return list(threads.map(lambda chat: self._pooled(chat, task), chats))

    def _pooled(self, chat: list[Message], task: str) -> tuple[float, ...]:
        request = replace(self._pipeline.request(chat), task=task)
        pooled = [delta.pooled for delta in self._client.stream(request) if delta.pooled]
        if not pooled:
            raise no_output(task)
        return pooled[0]


def _picture(picture: Any) -> Part:
    return {"type": "image", "image": picture}
