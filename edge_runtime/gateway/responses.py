"""The answer of POST /v1/responses, as a list of OpenAI's items (reasoning, a message, calls), whole or as named events."""

import time
from typing import Any
from uuid import uuid4

from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import ChatRequest
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta


def error_event(failure: Failure) -> dict[str, Any]:
    """An error in a stream, as OpenAI's clients raise it."""
    return {"type": "error", "code": failure.code or "server_error", "message": str(failure), "param": failure.param}


class Response:
    """An answer as a list of OpenAI's items."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens, is_thinking: bool | None = None) -> None:
        self._chat, self._model, self._prompt = chat, model, prompt
        self._reader = AnswerReader(chat, is_thinking)
        self._id, self._created, self._count = f"resp_{uuid4().hex}", int(time.time()), -1
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the item that still grows: the last one

    def first(self) -> list[dict[str, Any]]:
        now = self._response("in_progress")
        return [self._event("response.created", response=now), self._event("response.in_progress", response=now)]

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        piece, events = self._reader.add(delta), list[dict[str, Any]]()
        if piece.reasoning:
            events += self._grow("reasoning", "reasoning_text", piece.reasoning)
        if piece.text:
            events += self._grow("message", "output_text", piece.text)
        for call in piece.calls:
            events += self._close() + self._call(call)
        return events

    def last(self) -> list[dict[str, Any]]:
        events = self._close()
        name = "response.incomplete" if self._reader.reason == "length" else "response.completed"
        return [*events, self._event(name, response=self._response(name.removeprefix("response.")))]

    def whole(self) -> dict[str, Any]:
        self._close()
        return self._response("incomplete" if self._reader.reason == "length" else "completed")

    def _event(self, name: str, /, **values: Any) -> dict[str, Any]:
        self._count += 1
        return {"type": name, "sequence_number": self._count, **values}

    def _grow(self, kind: str, part: str, text: str) -> list[dict[str, Any]]:
        events = list[dict[str, Any]]()
        if self._open is None or self._open["type"] != kind:
            events += self._close()
            empty: dict[str, Any] = {"type": part, "text": ""} | (
                {"annotations": [], "logprobs": []} if part == "output_text" else {}
            )
            head: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            item = {"id": f"{kind[:3]}_{uuid4().hex}", "type": kind, "status": "in_progress", **head, "content": []}
            events.append(self._event("response.output_item.added", output_index=len(self._items), item=dict(item)))
            self._open = item | {"content": [empty]}
            self._items.append(self._open)
            events.append(self._event("response.content_part.added", **self._place(), part=dict(empty)))
        self._open["content"][0]["text"] += text
        more: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
        return [*events, self._event(f"response.{part}.delta", **self._place(), delta=text, **more)]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _close(self) -> list[dict[str, Any]]:
        if (item := self._open) is None:
            return []
        self._open, item["status"], (part,) = None, "completed", item["content"]
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        return [
            self._event(f"response.{part['type']}.done", **self._place(), text=part["text"], **more),
            self._event("response.content_part.done", **self._place(), part=part),
            self._event("response.output_item.done", output_index=len(self._items) - 1, item=item),
        ]

    def _call(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        function, index = call["function"], len(self._items)
        item = {"id": f"fc_{uuid4().hex}", "type": "function_call", "call_id": call["id"], "name": function["name"]}
        done = item | {"arguments": function["arguments"], "status": "completed"}
        self._items.append(done)
        place = {"item_id": item["id"], "output_index": index}
        begun = item | {"arguments": "", "status": "in_progress"}
        arguments = function["arguments"]
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.function_call_arguments.delta", **place, delta=arguments),
            self._event("response.function_call_arguments.done", **place, name=function["name"], arguments=arguments),
            self._event("response.output_item.done", output_index=index, item=done),
        ]

    def _response(self, status: str) -> dict[str, Any]:
        asked, prompt, num_tokens = self._chat.original, self._prompt, self._reader.num_tokens
        usage = {
            "input_tokens": prompt.total,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": num_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reader.num_reasoning_tokens},
            "total_tokens": prompt.total + num_tokens,
        }
        return {
            "id": self._id, "object": "response", "created_at": self._created, "status": status, "model": self._model,
            "output": [dict(item) for item in self._items], "error": None, "store": False,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.get("instructions"), "metadata": asked.get("metadata") or {},
            "max_output_tokens": asked.get("max_output_tokens"), "previous_response_id": None,
            "parallel_tool_calls": asked.get("parallel_tool_calls", True), "tools": asked.get("tools") or [],
            "tool_choice": asked.get("tool_choice", "auto"), "temperature": self._chat.sampling.temperature,
            "top_p": self._chat.sampling.top_p, "text": asked.get("text") or {"format": {"type": "text"}},
            "reasoning": asked.get("reasoning") or {"effort": None, "summary": None}, "truncation": "disabled",
            "usage": None if status == "in_progress" else usage,
        }  # fmt: skip
