"""Tool calls found in the text of an answer, as it arrives.

Qwen's template asks for one JSON object between <tool_call> and </tool_call> (the form vLLM's parser calls hermes). A call
is given out whole when its end arrives. Text that might be the beginning of a mark is held back until it is known; what
stands between marks and is no call is given out as text.
"""

import json
from typing import Any
from uuid import uuid4

START, END = "<tool_call>", "</tool_call>"


class ToolCallParser:
    """Fed with pieces of text."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._held = ""  # from a mark on, or what may become one
        self._is_after_call = False  # the white space behind a call is no text

    def feed(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """Text that is no call, and the calls that have become whole."""
        self._held += text
        plain, calls = "", list[dict[str, Any]]()
        while True:
            start = self._held.find(START)
            if start < 0:
                keep = _overlap(self._held)
                cut = len(self._held) - keep
                return plain + self._text(cut), calls
            plain += self._text(start)
            if (end := self._held.find(END)) < 0:
                return plain, calls
            whole, self._held = self._held[: end + len(END)], self._held[end + len(END) :]
            if (call := self._call(whole[len(START) : end])) is None:
                plain, self._is_after_call = plain + whole, False
            else:
                calls.append(call)
                self._is_after_call = True

    def rest(self) -> str:
        """What is still held when the answer is over."""
        return self._text(len(self._held))

    def _text(self, cut: int) -> str:
        text, self._held = self._held[:cut], self._held[cut:]
        if self._is_after_call:
            text = text.lstrip()
            self._is_after_call = not text
        return text

    def _call(self, text: str) -> dict[str, Any] | None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        arguments = value.get("arguments", {})
        self.num_calls += 1
        return {
            "index": self.num_calls - 1,
            "id": f"call_{uuid4().hex[:24]}",
            "type": "function",
            "function": {
                "name": value["name"],
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
            },
        }


def _overlap(text: str) -> int:
    """Characters at the end of the text that are the beginning of START."""
    return next((n for n in range(min(len(text), len(START) - 1), 0, -1) if text.endswith(START[:n])), 0)
