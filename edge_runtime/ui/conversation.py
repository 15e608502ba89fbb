"""One visitor's conversation: what the model is told, turn by turn, and what each turn cost.

A picture or video goes into the turn it was shown for; later turns carry it along, and neither the tower nor the wire
sees it again. A turn that fails is taken back whole, so the next one starts where the last answer ended.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contract.sampling import Sampling
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Media:
    """A picture or video file that is shown."""

    kind: Kind
    path: Path


@dataclass(frozen=True)
class Turn:
    """An answer so far, and where its time went.

    Attributes:
        encode_ms: decoding, resizing and the tower, on this device.
        num_media: pictures and videos of the conversation; num_encoded of them ran through the tower for this turn,
            num_uploaded travelled.
        upload_bytes: tensor bytes sent.
        first_token_ms: from sending the request to the first piece of the answer; None before it.
        tokens_per_s: behind the first token; None before there are two.
    """

    text: str = ""
    encode_ms: float = 0.0
    num_media: int = 0
    num_encoded: int = 0
    num_uploaded: int = 0
    upload_bytes: int = 0
    num_input_tokens: int = 0
    num_visual_tokens: int = 0
    num_tokens: int = 0
    first_token_ms: float | None = None
    tokens_per_s: float | None = None


@dataclass
class Conversation:
    """messages in transformers' form; shown is the media of the latest turn that had some."""

    messages: list[Message] = field(default_factory=list)
    shown: Media | None = None

    def ask(
        self,
        pipeline: Pipeline,
        client: "GrpcClient | HttpClient",
        question: str,
        media: Media | None,
        sampling: Sampling,
    ) -> Iterator[Turn]:
        """Yield the turn as it grows; closing the iterator cancels the request on the server and forgets the turn.

        Raises:
            EdgeVlmError: of the pipeline or the client; the conversation is as before.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if media is not None and media != self.shown:
            content.insert(0, {"type": media.kind, media.kind: str(media.path)})
        messages: list[Message] = [*self.messages, {"role": "user", "content": content}]
        started = time.perf_counter()
        request = pipeline.request(messages)
        sent = time.perf_counter()
        turn = Turn(
            encode_ms=(sent - started) * 1e3,
            num_media=len(request.items),
            num_encoded=request.num_encoded,
            num_visual_tokens=sum(len(item.main) for item in request.items),
        )
        yield turn
        first = 0.0
        with closing(client.stream(request, sampling)) as deltas:
            for delta in deltas:
                now = time.perf_counter()
                num_tokens = turn.num_tokens + len(delta.token_ids)
                if turn.first_token_ms is None:
                    first = now
                    turn = replace(turn, first_token_ms=(now - sent) * 1e3)
                elif num_tokens > 1:
                    turn = replace(turn, tokens_per_s=(num_tokens - 1) / (now - first))
                turn = replace(
                    turn,
                    text=turn.text + delta.text,
                    num_tokens=num_tokens,
                    num_input_tokens=max(turn.num_input_tokens, delta.num_input_tokens),
                    num_uploaded=delta.num_uploaded,
                    upload_bytes=delta.upload_bytes,
                )
                yield turn
        self.messages = [*messages, {"role": "assistant", "content": turn.text}]
        self.shown = media or self.shown
