"""POST /v1/rerank: documents by how well they answer a query, in the form of Cohere and Jina."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from contract.errors import shown
from contract.tasks import SCORE
from edge_runtime.gateway.chat_request import check_fields, check_model
from edge_runtime.gateway.entry import Entry, read_entries, read_entry
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import flag, text, whole
from edge_runtime.gateway.json_body import json_bytes
from edge_runtime.gateway.settings import Settings
from edge_runtime.prompts.chat_template import Message
from edge_runtime.prompts.retrieval import rerank_messages
from edge_runtime.vectors import Vectors

READ = ("model", "query", "documents", "top_n", "return_documents", "instruction")
IGNORED = ("user", "request_id", "cache_salt", "client_name", "priority")
NEUTRAL: dict[str, Any] = {  # the only value, besides null, that the gateway accepts
    "max_chunks_per_doc": None, "max_tokens_per_doc": None, "truncate_prompt_tokens": None, "rank_fields": None,
    "use_activation": True, "chat_template_kwargs": {}, "task": SCORE,
}  # fmt: skip


@dataclass(frozen=True)
class RerankRequest:
    """One query and its documents.

    Attributes:
        top_n: how many of the best documents to return; None returns all.
        returns_documents: whether each result repeats its document as the client wrote it.
        originals: the documents as the client wrote them.
        instruction: by which rule a document is good; None for the model's usual words.
        ignored: the names of the fields that the gateway ignores.
    """

    query: Entry
    documents: tuple[Entry, ...]
    originals: tuple[Any, ...]
    top_n: int | None = None
    returns_documents: bool = False
    instruction: str | None = None
    ignored: tuple[str, ...] = ()
    task = SCORE

    @property
    def entries(self) -> tuple[Entry, ...]:
        return (self.query, *self.documents)

    def chats(self) -> list[list[Message] | tuple[int, ...]]:
        """What the model reads for each document."""
        return [
            rerank_messages(self.query.copied_parts(), one.copied_parts(), self.instruction) for one in self.documents
        ]

    def check(self, width: int) -> None:
        """A score has no width."""

    def pieces(self, pooled: list[Vectors], num_tokens: int, model: str) -> Iterator[bytes]:
        """The answer: the best document first; the first given first among equals."""
        ranked = sorted(range(len(pooled)), key=lambda place: -pooled[place][0])[: self.top_n]
        results: list[dict[str, Any]] = []
        for place in ranked:
            shown = {"document": _document(self.originals[place])} if self.returns_documents else {}
            results.append({"index": place, "relevance_score": float(pooled[place][0])} | shown)
        usage = {"total_tokens": num_tokens, "prompt_tokens": num_tokens}
        yield json_bytes({"id": f"rerank-{uuid4().hex}", "model": model, "results": results, "usage": usage})


def read_rerank(values: dict[str, Any], settings: Settings) -> RerankRequest:
    """The request that a body of /v1/rerank means.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*READ, *IGNORED), NEUTRAL, settings)
    check_model(given.get("model"), settings)
    instruction = text(given, "instruction")
    if not isinstance(documents := given.get("documents"), list):
        raise Failure(400, f"documents is {shown(documents)}, a list is expected", param="documents")
    query, entries = read_entry(given.get("query"), "query", settings), read_entries(documents, "documents", settings)
    for entry in (query, *entries):
        if entry.ids:
            raise Failure(400, f"{entry.param} has token ids, text, image or video is expected", param=entry.param)
    return RerankRequest(
        query,
        entries,
        tuple(documents),
        whole(given, "top_n", 1, 1 << 31),
        flag(given, "return_documents"),
        instruction,
        (*ignored,),
    )


def _document(original: Any) -> Any:
    return {"text": original} if isinstance(original, str) else original
