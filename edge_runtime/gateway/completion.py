"""An answer of the server in OpenAI's form: one chat.completion, or a series of chat.completion.chunk."""

import time
from typing import Any
from uuid import uuid4

from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import ChatRequest
from edge_runtime.gateway.usage import PromptTokens, usage
from edge_runtime.request import Delta

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity; vLLM's number


class Completion:
    """Takes the deltas of one answer; returns its chunks or the whole."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens, is_thinking: bool | None = None) -> None:
        self._chat, self._prompt = chat, prompt
        self._reader = AnswerReader(chat, is_thinking)
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []

    def first(self) -> list[dict[str, Any]]:
        """The chunk before all others, which names the role."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """The chunk of a delta, in a list; an empty list where there is nothing to show yet."""
        piece = self._reader.add(delta)
        text, calls = piece.text, piece.calls
        logprobs = [shown_logprob(token) for token in delta.logprobs]
        if not self._chat.is_stream:
            self._text.append(text)
            self._thoughts.append(piece.reasoning)
            self._calls += calls
            self._logprobs += logprobs
            return []
        if not (text or calls or logprobs or piece.reasoning):
            return []
        said: dict[str, Any] = {"content": text} if text or not (calls or piece.reasoning) else {}
        if piece.reasoning:  # the newer name is vLLM's and OpenRouter's, the older DeepSeek's
            said |= {"reasoning_content": piece.reasoning, "reasoning": piece.reasoning}
        if calls:
            said["tool_calls"] = calls
        return [self._chunk(said, logprobs)]

    def last(self) -> list[dict[str, Any]]:
        """The chunk with the reason, and one with the usage where the client asks for it."""
        chunks = [self._chunk({}, reason=self._reader.reason)]
        if self._chat.includes_usage:
            chunks.append(self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage()})
        return chunks

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        text = "".join(self._text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if thoughts := "".join(self._thoughts):
            message |= {"reasoning_content": thoughts, "reasoning": thoughts}
        if self._calls:
            calls = [{key: value for key, value in call.items() if key != "index"} for call in self._calls]
            message |= {"content": text or None, "tool_calls": calls}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": self._logprobs, "refusal": None} if self._chat.wants_logprobs else None,
            "finish_reason": self._reader.reason,
        }
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        """The numbers of tokens of prompt and answer."""
        return usage(self._prompt, self._reader.num_tokens, self._reader.num_reasoning_tokens)

    def _chunk(
        self, said: dict[str, Any], logprobs: list[dict[str, Any]] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        shown = {"content": logprobs, "refusal": None} if logprobs else None
        choice = {"index": 0, "delta": said, "logprobs": shown, "finish_reason": reason}
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        if self._chat.has_running_usage:
            return chunk | {"usage": self.usage()}
        return chunk | {"usage": None} if self._chat.includes_usage else chunk


def shown_logprob(token: dict[str, Any]) -> dict[str, Any]:
    """A token of a Delta in OpenAI's form, which Ollama has, too."""
    return _named(token) | {"top_logprobs": [_named(other) for other in token["top"]]}


def _named(token: dict[str, Any]) -> dict[str, Any]:
    text = token["token"]
    return {"token": text, "logprob": max(token["logprob"], LEAST_LOGPROB), "bytes": list(text.encode())}
