"""The conversations in which an embedding model and a reranker read what they shall judge.

The words are those with which Qwen's embedding and reranking checkpoints were trained. Source: QwenLM/Qwen3-VL-Embedding,
`format_model_input` of src/models/qwen3_vl_embedding.py and `format_mm_instruction` of qwen3_vl_reranker.py.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

from edge_runtime.prompts.chat_template import Message

Part = dict[str, Any]  # of a message's content
EMBED = "Represent the user's input."
RERANK = "Given a search query, retrieve relevant candidates that answer the query."
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer "
    'can only be "yes" or "no".'
)


def embedding_messages(parts: Sequence[Part], instruction: str | None = None) -> list[Message]:
    """The conversation of one thing to embed.

    Args:
        parts: its text, pictures and videos, as content parts of a message.
        instruction: what the embedding is for; it ends in a full stop where it has no other mark at its end.
    """
    said = (instruction or "").strip() or EMBED
    if not unicodedata.category(said[-1]).startswith("P"):
        said += "."
    return _conversation(said, [*parts] or [_text("")])


def rerank_messages(query: Sequence[Part], document: Sequence[Part], instruction: str | None = None) -> list[Message]:
    """The conversation about one query and one document; the answer is yes or no.

    Args:
        query, document: content parts of a message.
        instruction: by which rule a document is good.
    """
    content = [_text(f"<Instruct>: {instruction or RERANK}")]
    for prefix, parts in (("<Query>:", query), ("\n<Document>:", document)):
        content += [_text(prefix), *(parts or [_text("NULL")])]
    return _conversation(JUDGE, content)


def _conversation(system: str, content: list[Part]) -> list[Message]:
    return [{"role": "system", "content": [_text(system)]}, {"role": "user", "content": content}]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}
