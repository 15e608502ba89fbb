"""This module finds tool calls in the text of an answer, while it arrives, in the form of the checkpoint's template.

Between <tool_call> and </tool_call> stands one JSON object (Qwen3; vLLM's parser for it is hermes) or one <function=…>
with <parameter=…> elements (Qwen3-Coder, Qwen3.5). The parser returns each call whole. JSON ends where its braces
close, so an end mark inside a string is text, and a missing one does no harm. The parser holds text back while it may
become a mark; it returns text between marks that is no call as text.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

START, END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
FUNCTION_OVER = re.compile(rf"{FUNCTION_END}\s*")
PARAMETER = re.compile(r"<parameter=([^>\n]{1,256})>\n?")
PARAMETER_OVER = re.compile(r"\n?</parameter>\s*(?=<parameter=|\Z)")


class ToolCallParser:
    """Takes an answer's text in pieces.

    Args:
        tools: the request's functions; their schemas say what the text of an XML parameter means.
        max_calls: the most calls that the parser returns; None for all.
    """

    def __init__(self, tools: list[Any] | None = None, max_calls: int | None = None) -> None:
        self.num_calls = 0
        self._schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools or []}
        self._max_calls = max_calls
        self._held = ""  # the text from a mark on, or from what may become one
        self._braces, self._function = _Braces(), _Function()
        self._is_after_call = False  # the white space behind a call is no text

    def feed(self, text: str, is_last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """The text that is no call, and the calls that are now whole; with is_last also what the parser still holds."""
        self._held += text
        plain, calls = "", list[dict[str, Any]]()
        while True:
            start = self._held.find(START)
            if start < 0:
                keep = 0 if is_last else overlap(self._held, START)
                return plain + self._text(len(self._held) - keep), calls
            plain += self._text(start)
            body = self._held[len(START) :]
            if (end := self._end(body, is_last)) is None:
                return (plain + self._text(len(self._held)), calls) if is_last else (plain, calls)
            inner, over = end
            call = self._call(body[:inner])
            self._braces, self._function = _Braces(), _Function()
            if call is None:
                plain, self._is_after_call = plain + self._held[: len(START) + over], False
            elif self._max_calls is None or self.num_calls < self._max_calls:
                calls.append(call | {"index": self.num_calls})
                self.num_calls += 1
            self._is_after_call = call is not None
            self._held = body[over:]

    def _end(self, body: str, is_last: bool) -> tuple[int, int] | None:
        """Where a call ends, and where its end mark does; None while that is uncertain."""
        begun = body.lstrip()
        if begun.startswith("{"):
            if (inner := self._braces.end(body)) is None:
                return None
            rest = body[inner:].lstrip()
            if rest.startswith(END):
                return inner, len(body) - len(rest) + len(END)
            return None if END.startswith(rest) and not is_last else (inner, inner)
        if begun.startswith(FUNCTION):
            if found := self._function.end(body):
                return found
            last = body.rfind(FUNCTION_END)
            return (last, last + len(FUNCTION_END)) if is_last and last >= 0 else None
        if not is_last and FUNCTION.startswith(begun):
            return None
        end = body.find(END)
        return None if end < 0 else (end, end + len(END))

    def _text(self, cut: int) -> str:
        text, self._held = self._held[:cut], self._held[cut:]
        if self._is_after_call:
            text = text.lstrip()
            self._is_after_call = not text
        return text

    def _call(self, text: str) -> dict[str, Any] | None:
        text = text.strip()
        return self._from_xml(text) if text.startswith(FUNCTION) else call_of(text)

    def _from_xml(self, text: str) -> dict[str, Any] | None:
        name, mark, inner = text[len(FUNCTION) :].partition(">")
        if not mark or not name.strip():
            return None
        properties = self._schemas.get(name.strip(), {}).get("properties", {})
        found = {key: _value(text, properties.get(key)) for key, text in _parameters(inner)}
        return _named(name.strip(), json.dumps(found, ensure_ascii=False))


class _Function:
    """Finds where a <function=…> ends; after each piece it goes on at the first end mark that is still uncertain."""

    def __init__(self) -> None:
        self._at = 0

    def end(self, text: str) -> tuple[int, int] | None:
        """Where the function ends, and where the call does; None while that has not come. `text` may only grow."""
        while found := FUNCTION_OVER.search(text, self._at):
            self._at, at = found.start(), found.end()
            if text.startswith((END, START), at):
                return self._at, at + (len(END) if text.startswith(END, at) else 0)
            if END.startswith(rest := text[at : at + len(END)]) or START.startswith(rest):  # more may come
                return None
            self._at = at
        self._at = max(self._at, len(text) - len(FUNCTION_END) + 1)
        return None


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    """The names and texts of the parameters; reads the text once, however many marks stand in it."""
    at = 0
    while (begun := PARAMETER.search(text, at)) and (over := PARAMETER_OVER.search(text, begun.end())):
        yield begun[1].strip(), text[begun.end() : over.start()]
        at = over.end()


class _Braces:
    """Finds where a JSON object ends; looks at each character once."""

    def __init__(self) -> None:
        self._at = self._depth = 0
        self._in_string = self._is_escaped = False

    def end(self, text: str) -> int | None:
        """The place behind the brace that closes the first one; None while it has not come. `text` may only grow."""
        while self._at < len(text):
            character = text[self._at]
            self._at += 1
            if self._in_string:
                if self._is_escaped:
                    self._is_escaped = False
                elif character == "\\":
                    self._is_escaped = True
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                if not self._depth:
                    self._at -= 1  # the next call finds it again
                    self._depth = 1
                    return self._at + 1
        return None


def as_object(arguments: str) -> Any:
    """The arguments of a call, which OpenAI's form holds as text, as an object."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return {"arguments": arguments}


def call_of(text: str) -> dict[str, Any] | None:
    """The call that a JSON object describes; None where the text describes none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return _named(value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _named(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": 0, "id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}


def _value(text: str, schema: Any) -> Any:
    """The value of an XML parameter in the type of its schema; the text itself where it does not fit that type."""
    kind = schema.get("type", "string") if isinstance(schema, dict) else "string"
    if kind == "string" or (isinstance(kind, list) and "string" in kind):
        return text
    try:
        return json.loads(text if kind in ("object", "array") else text.strip().lower())
    except (ValueError, RecursionError):
        return text


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text are the beginning of a mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
