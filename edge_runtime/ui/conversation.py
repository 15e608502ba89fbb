"""One visitor's conversation: what the model gets, turn by turn, and what each turn costs.

The model sees what the page shows beside the chat, and nothing else: a picture goes into the first turn for which the
page shows it, later turns carry it along (the device neither encodes nor sends it again), and no later prompt has a
picture that the visitor removes. Where a turn fails, or the visitor stops it before its first token, the conversation
forgets the whole turn, so the next one starts where the last answer ends.
"""

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contract.sampling import Sampling
from edge_runtime.encoded_item import EncodedItem
from edge_runtime.items.jpeg import jpeg_bytes
from edge_runtime.pipeline import Pipeline
from edge_runtime.prompts.chat_template import Message
from edge_runtime.request import Delta

if TYPE_CHECKING:
    from edge_runtime.clients.grpc_client import GrpcClient
    from edge_runtime.clients.http_client import HttpClient

Kind = Literal["image", "video"]


@dataclass(frozen=True)
class Media:
    """A picture or video file that the page shows."""

    kind: Kind
    path: Path


@dataclass(frozen=True)
class Turn:
    """An answer so far, and where its time went.

    Attributes:
        text: the answer.
        encode_ms: milliseconds of this device to decode and resize the media and run the tower.
        num_media: pictures and videos of the conversation; the tower encoded num_encoded of them for this turn, and
            num_uploaded travelled.
        ran: what ran the tower for each of them, as in Request.
        upload_bytes: tensor bytes that the device sent.
        codec: how the rows travelled.
        fallback: why that is not the precision asked for; "" where it is.
        jpeg_bytes: bytes of the same pictures as JPEG of quality 90; None where device or server knew one before.
        num_input_tokens: tokens of the prompt; num_visual_tokens: those of pictures and videos.
        num_tokens: tokens of the answer.
        first_token_ms: milliseconds from the request to the first piece of the answer; None before that piece.
        tokens_per_s: the speed behind the first token; None before there are two.
        items: what the tower made of the media, in the order of the conversation.
    """

    text: str = ""
    encode_ms: float = 0.0
    num_media: int = 0
    num_encoded: int = 0
    ran: tuple[str, ...] = ()
    num_uploaded: int = 0
    upload_bytes: int = 0
    codec: str = ""
    fallback: str = ""
    jpeg_bytes: int | None = None
    num_input_tokens: int = 0
    num_visual_tokens: int = 0
    num_tokens: int = 0
    first_token_ms: float | None = None
    tokens_per_s: float | None = None
    items: tuple[EncodedItem, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Said:
    """A question with the pictures and videos that came with it, and its answer."""

    question: str
    media: tuple[Media, ...]
    answer: str


@dataclass
class Conversation:
    """The turns so far, and the turn under way.

    Attributes:
        said: the turns so far.
        system: the system prompt.
        max_pixels: the most pixels of each resized picture; None leaves it to the pipeline.
        beside: pictures that the page shows besides the one in the picture's box.
        pending: the turn under way.
    """

    said: list[Said] = field(default_factory=list)
    system: str = ""
    max_pixels: int | None = None
    beside: list[Path] = field(default_factory=list)
    pending: Said | None = None

    def settle(self) -> str:
        """End the running answer. Its readable part stays; where there is none, the question comes back."""
        pending, self.pending = self.pending, None
        if pending is None:
            return ""
        if not pending.answer:
            return pending.question
        self.said.append(pending)
        return ""

    def new(self, shown: Sequence[Media]) -> tuple[Media, ...]:
        """The media among `shown` that came with no earlier question."""
        known = {media for said in self.said for media in said.media}
        return tuple(media for media in dict.fromkeys(shown) if media not in known)

    def messages(self, shown: Sequence[Media], question: str) -> list[Message]:
        """The prompt of a question, in transformers' form."""
        messages: list[Message] = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for said in self.said:
            media = [one for one in said.media if one in shown]
            messages += [self._user(media, said.question), {"role": "assistant", "content": said.answer}]
        return [*messages, self._user(self.new(shown), question)]

    def take_back(self, turn: int) -> Said | None:
        """Forget a turn and all behind it; returns that turn, None where there is none."""
        self.settle()
        taken = self.said[turn] if -len(self.said) <= turn < len(self.said) else None
        if taken is not None:
            del self.said[turn if turn >= 0 else turn + len(self.said) :]
        return taken

    def forget(self) -> None:
        """Begin anew: no turn is left, none is under way, and no picture is kept."""
        self.pending = None
        self.said.clear()
        self.beside.clear()

    def as_json(self) -> str:
        """The conversation as JSON to keep: OpenAI's messages, with names in the place of pictures and videos."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for said in self.said:
            files = [f"[{one.kind}: {one.path.name}]" for one in said.media]
            messages += [
                {"role": "user", "content": "\n".join([*files, said.question])},
                {"role": "assistant", "content": said.answer},
            ]
        return json.dumps({"messages": messages}, ensure_ascii=False, indent=2)

    def _user(self, media: Sequence[Media], question: str) -> Message:
        content: list[dict[str, Any]] = [{"type": one.kind, one.kind: str(one.path)} for one in media]
        for part in content:
            if part["type"] == "image" and self.max_pixels is not None:
                part["max_pixels"] = self.max_pixels
        return {"role": "user", "content": [*content, {"type": "text", "text": question}]}

    def ask(
        self,
        pipeline: Pipeline,
        client: "GrpcClient | HttpClient",
        question: str,
        shown: Sequence[Media],
        sampling: Sampling,
    ) -> Iterator[Turn]:
        """Begin a turn, which ends the one under way, and return the turn as it grows.

        The turn is under way until its answer is whole, or until somebody calls settle(), take_back(), forget() or ask()
        again, in this thread or in another: then the iterator ends, and the server's request with it.

        Raises:
            EdgeVlmError: the pipeline or the client fails while the iterator runs; the conversation is as before.
        """
        self.settle()
        messages = self.messages(shown, question)
        self.pending = Said(question, self.new(shown), "")
        return self._answer(self.pending, _turns(pipeline, client, messages, sampling))

    def _answer(self, mine: Said, turns: Generator[Turn, None, None]) -> Iterator[Turn]:
        """Keep each answer so far, as long as the turn under way is this one."""
        try:
            with closing(turns):
                for turn in turns:
                    if self.pending is not mine:
                        return
                    mine = self.pending = replace(mine, answer=turn.text)
                    yield turn
        except Exception:
            if self.pending is not mine:
                return  # nobody waits for this answer
            self.pending = None
            raise
        if self.pending is mine:
            self.pending = None
            self.said.append(mine)


def _turns(
    pipeline: Pipeline, client: "GrpcClient | HttpClient", messages: list[Message], sampling: Sampling
) -> Generator[Turn, None, None]:
    started = time.perf_counter()
    prepared = pipeline.prepare(messages)
    request = pipeline.request(messages, prepared=prepared)
    sent = time.perf_counter()
    turn = Turn(
        encode_ms=(sent - started) * 1e3,
        num_media=len(request.items),
        num_encoded=request.num_encoded,
        ran=request.ran,
        num_visual_tokens=sum(len(item.main) for item in request.items),
        items=tuple(request.items),
    )
    yield turn
    with closing(client.stream(request, sampling)) as deltas:
        for grown in _growing(turn, deltas, sent):
            turn = grown
            yield turn
    card = pipeline.encoder.bundle.manifest.card
    sizes = [jpeg_bytes(one.item, card) for one in prepared]
    if turn.num_uploaded == len(sizes) > 0 and None not in sizes:
        yield replace(turn, jpeg_bytes=sum(size or 0 for size in sizes))


def _growing(turn: Turn, deltas: Iterator[Delta], sent: float) -> Iterator[Turn]:
    first = 0.0
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
            codec=delta.precision,
            fallback=delta.fallback,
        )
        yield turn
