"""The parts of an answer, piece by piece: reasoning, text and tool calls."""

from dataclasses import dataclass, field
from typing import Any

from edge_runtime.gateway.chat_request import ChatRequest
from edge_runtime.gateway.reasoning import ReasoningParser
from edge_runtime.gateway.tool_calls import ToolCallParser, call_of
from edge_runtime.request import Delta


@dataclass(frozen=True)
class AnswerPart:
    """What a delta adds to an answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


class AnswerReader:
    """Takes the deltas of one answer. It finds calls behind the reasoning only: a call in a thought does not count.

    Args:
        chat: the request.
        is_thinking: whether the prompt ends with an open mark of reasoning; None where the checkpoint knows none.

    Attributes:
        num_tokens, num_reasoning_tokens: how many tokens have come so far, and how many of them are reasoning.
        num_calls: how many calls have come so far.
    """

    def __init__(self, chat: ChatRequest, is_thinking: bool | None = None) -> None:
        self.num_tokens = self.num_reasoning_tokens = self.num_calls = 0
        self._is_forced, self._forced = chat.is_forced, ""
        self._reasoning = (
            None if is_thinking is None or (chat.is_forced and not is_thinking) else ReasoningParser(is_thinking)
        )
        self._calls = ToolCallParser(chat.tools, chat.max_calls) if chat.tools and not chat.is_forced else None
        self._finish_reason = ""

    def add(self, delta: Delta) -> AnswerPart:
        """What is certain by now; at the last delta the reader also returns what it has held back."""
        is_last, text, reasoning = bool(delta.finish_reason), delta.text, ""
        self.num_tokens += len(delta.token_ids)
        self._finish_reason = delta.finish_reason
        if self._reasoning is not None:
            was_thinking = self._reasoning.is_thinking
            reasoning, text = self._reasoning.feed(text, is_last)
            if was_thinking or self._reasoning.is_thinking:
                self.num_reasoning_tokens += len(delta.token_ids)
        calls = list[dict[str, Any]]()
        if self._is_forced:
            self._forced, text = self._forced + text, ""
            if is_last:
                call = call_of(self._forced)
                text, calls = (self._forced, []) if call is None else ("", [call])
        elif self._calls is not None:
            text, calls = self._calls.feed(text, is_last)
        self.num_calls += len(calls)
        return AnswerPart(text, reasoning, calls)

    @property
    def reason(self) -> str:
        """Why the answer ends, in OpenAI's words."""
        return "tool_calls" if self.num_calls and self._finish_reason == "stop" else self._finish_reason
