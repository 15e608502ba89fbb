"""An answer of the server as OpenAI shapes it: one chat.completion, or a row of chat.completion.chunk."""

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np

from contract.card import ModelCard
from edge_runtime.gateway.chat_request import ChatRequest
from edge_runtime.gateway.tool_calls import ToolCallParser
from edge_runtime.request import Delta, Request

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity; vLLM's number


@dataclass(frozen=True)
class PromptTokens:
    """Tokens of a prompt by what they stand for; num_text holds everything that is no embedding row."""

    num_text: int
    num_image: int
    num_video: int

    @classmethod
    def of(cls, request: Request, card: ModelCard) -> "PromptTokens":
        image = int(np.count_nonzero(request.input_ids == card.image_token_id))
        video = int(np.count_nonzero(request.input_ids == card.video_token_id))
        return cls(len(request.input_ids) - image - video, image, video)

    @property
    def total(self) -> int:
        return self.num_text + self.num_image + self.num_video


class Completion:
    """Fed with the deltas of one answer; gives out its pieces or the whole."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens) -> None:
        self._chat, self._prompt = chat, prompt
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._parser = ToolCallParser() if chat.tools else None
        self._text: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._finish_reason = ""
        self.num_tokens = 0

    def first(self) -> dict[str, Any]:
        """The chunk before all others, which says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def add(self, delta: Delta) -> dict[str, Any] | None:
        """The chunk of a delta; None where it has nothing to show yet."""
        text, calls = delta.text, list[dict[str, Any]]()
        if self._parser is not None:
            text, calls = self._parser.feed(text)
            if delta.finish_reason:
                text += self._parser.rest()
        logprobs = [_logprob(token) for token in delta.logprobs]
        self.num_tokens += len(delta.token_ids)
        self._finish_reason = delta.finish_reason
        if not self._chat.is_stream:
            self._text.append(text)
            self._calls += calls
            self._logprobs += logprobs
            return None
        if not (text or calls or logprobs):
            return None
        said: dict[str, Any] = {"content": text} if text or not calls else {}
        if calls:
            said["tool_calls"] = calls
        return self._chunk(said, logprobs)

    def last(self) -> list[dict[str, Any]]:
        """The chunk with the reason, and the usage where it was asked for."""
        chunks = [self._chunk({}, reason=self._reason())]
        if self._chat.includes_usage:
            chunks.append(self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage()})
        return chunks

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        text = "".join(self._text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._calls:
            calls = [{key: value for key, value in call.items() if key != "index"} for call in self._calls]
            message |= {"content": text or None, "tool_calls": calls}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": self._logprobs, "refusal": None} if self._chat.wants_logprobs else None,
            "finish_reason": self._reason(),
        }
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        """Tokens of prompt and answer."""
        prompt = self._prompt
        return {
            "prompt_tokens": prompt.total,
            "completion_tokens": self.num_tokens,
            "total_tokens": prompt.total + self.num_tokens,
            "prompt_tokens_details": {
                "text_tokens": prompt.num_text,
                "image_tokens": prompt.num_image,
                "video_tokens": prompt.num_video,
            },
        }

    def _reason(self) -> str:
        if self._parser is not None and self._parser.num_calls and self._finish_reason == "stop":
            return "tool_calls"
        return self._finish_reason

    def _chunk(
        self, said: dict[str, Any], logprobs: list[dict[str, Any]] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        shown = {"content": logprobs, "refusal": None} if logprobs else None
        choice = {"index": 0, "delta": said, "logprobs": shown, "finish_reason": reason}
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if self._chat.includes_usage else chunk


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    return _named(token) | {"top_logprobs": [_named(other) for other in token["top"]]}


def _named(token: dict[str, Any]) -> dict[str, Any]:
    text = token["token"]
    return {"token": text, "logprob": max(token["logprob"], LEAST_LOGPROB), "bytes": list(text.encode())}
