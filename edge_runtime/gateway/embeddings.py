"""POST /v1/embeddings: OpenAI's form, with pictures and videos as entries (Jina's form) or as messages (vLLM's)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract.errors import shown
from contract.tasks import EMBED
from edge_runtime.gateway.chat_request import check_fields, check_model
from edge_runtime.gateway.entry import Entry, read_entries
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import flag, text, whole
from edge_runtime.gateway.json_body import json_bytes
from edge_runtime.gateway.messages import read_messages
from edge_runtime.gateway.settings import Settings
from edge_runtime.prompts.chat_template import Message
from edge_runtime.prompts.retrieval import embedding_messages
from edge_runtime.vectors import Vectors, as_base64
from edge_runtime.vectors import shortened as cut

READ = ("model", "input", "messages", "dimensions", "encoding_format", "instruction", "continue_final_message")
IGNORED = ("user", "request_id", "cache_salt", "metadata")
NEUTRAL: dict[str, Any] = {  # the only value, besides null, that the gateway accepts
    "add_generation_prompt": True, "add_special_tokens": True, "chat_template": None, "chat_template_kwargs": {},
    "truncate_prompt_tokens": None, "priority": 0, "normalize": True, "normalized": True, "use_activation": True,
    "embed_dtype": "float32", "endianness": "native", "task": EMBED,
}  # fmt: skip
FORMATS = ("float", "base64")


@dataclass(frozen=True)
class EmbeddingsRequest:
    """Things to embed, in the order of the answer.

    Attributes:
        dimensions: how many of the first values to keep; None keeps all.
        is_base64: whether a vector travels as the base64 of its float32 values, else as a list of numbers.
        instruction: what the embeddings are for; None for the model's usual words.
        ignored: the names of the fields that the gateway ignores.
    """

    entries: tuple[Entry, ...]
    dimensions: int | None = None
    is_base64: bool = False
    instruction: str | None = None
    ignored: tuple[str, ...] = ()
    task = EMBED

    def chats(self) -> list[list[Message] | tuple[int, ...]]:
        """What the model reads for each entry: a conversation, or token ids."""
        return [
            entry.ids or entry.messages or embedding_messages(entry.copied_parts(), self.instruction)
            for entry in self.entries
        ]

    def check(self, width: int) -> None:
        """Check `dimensions` against the width of the model's vectors.

        Raises:
            Failure: 400, there are fewer values.
        """
        if self.dimensions is not None and self.dimensions > width:
            raise Failure(
                400, f"dimensions is {self.dimensions}, 1 to {width} are allowed: the model's vectors have {width} values",
                param="dimensions",
            )  # fmt: skip

    def pieces(self, pooled: list[Vectors], num_tokens: int, model: str) -> Iterator[bytes]:
        """The answer in OpenAI's form, one vector after another."""
        yield b'{"object":"list","data":['
        for index, one in enumerate(pooled):
            (vector,) = cut(one[None], self.dimensions)
            shown = as_base64(vector) if self.is_base64 else vector.tolist()
            mark = b"," if index else b""
            yield mark + json_bytes({"object": "embedding", "index": index, "embedding": shown})
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        yield b"]," + json_bytes({"model": model, "usage": usage})[1:]


def read_embeddings(values: dict[str, Any], settings: Settings) -> EmbeddingsRequest:
    """The request that a body of /v1/embeddings means.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*READ, *IGNORED), NEUTRAL, settings)
    check_model(given.get("model"), settings)
    form = given.get("encoding_format", FORMATS[0])
    if form not in FORMATS:
        raise Failure(
            400,
            f"encoding_format is {shown(form)}, one of {', '.join(FORMATS)} is expected",
            param="encoding_format",
        )
    if ("input" in given) == ("messages" in given):
        raise Failure(
            400,
            f"{'both' if 'input' in given else 'neither'} of input and messages given: send one of them",
            param="input",
        )
    instruction = text(given, "instruction")
    if instruction is not None and "messages" in given:
        raise Failure(400, "instruction and messages were both sent: put it into a system message", param="instruction")
    if "messages" in given:
        entries: tuple[Entry, ...] = (Entry("messages", messages=_conversation(given, settings)),)
    else:
        entries = read_entries(given["input"], "input", settings)
    return EmbeddingsRequest(
        entries, whole(given, "dimensions", 1, 1 << 20), form == "base64", instruction, (*ignored,)
    )


def _conversation(given: dict[str, Any], settings: Settings) -> list[Message]:
    """The messages. vLLM's clients end them with an empty turn of the assistant that goes on; the template writes it."""
    messages = read_messages(given["messages"], settings)
    if flag(given, "continue_final_message"):
        last = messages.pop()
        texts = (
            [part.get("text") for part in last["content"]] if isinstance(last["content"], list) else [last["content"]]
        )
        if last["role"] != "assistant" or any(texts) or not messages:
            raise Failure(
                400, f"continue_final_message is true and the last message is {shown(last)}, an empty one of the assistant is "
                "expected",
                param="continue_final_message",
            )  # fmt: skip
    return messages
