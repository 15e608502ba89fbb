"""POST /v1/responses, OpenAI's newer endpoint, without a memory: a request brings its whole conversation.

This module turns the body into a chat request, and the answer into a list of items (reasoning, a message, calls), whole
or as named events.
"""

import time
from typing import Any
from uuid import uuid4

from contract.errors import shown
from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import PASSED, ChatRequest, check_fields, read_chat
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, listed, mapping
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta

SAME = (*PASSED, "model", "stream", "parallel_tool_calls", "user", "metadata", "service_tier", "safety_identifier",
        "prompt_cache_key", "chat_template_kwargs", "mm_processor_kwargs", "max_tokens")  # fmt: skip
READ = ("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "store", "include",
        "top_logprobs", "stream_options")  # fmt: skip
NEUTRAL: dict[str, Any] = {
    "previous_response_id": None, "conversation": None, "prompt": None, "background": False, "truncation": "disabled",
    "max_tool_calls": None, "n": 1, "logit_bias": {}, "context_management": None,
}  # fmt: skip
ITEMS = ("message", "reasoning", "function_call", "function_call_output")
INCLUDED = ("reasoning.encrypted_content",)  # the gateway has no encrypted reasoning, so an answer without it is whole


def read_response(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The chat request that a body of /v1/responses means.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*SAME, *READ), NEUTRAL, settings)
    chat = {name: given[name] for name in SAME if name in given}
    if "max_output_tokens" in given:
        chat["max_completion_tokens"] = given["max_output_tokens"]
    for name in listed(given, "include"):
        if name not in INCLUDED:
            raise Failure(400, f"include holds {shown(name)}, {', '.join(INCLUDED)} is expected", param="include")
    chat["messages"] = _messages(given)
    if tools := listed(given, "tools"):
        chat["tools"] = [_tool(tool) for tool in tools]
    choice = given.get("tool_choice")
    if isinstance(choice, dict):
        check_keys(choice, ("type", "name"), "tool_choice")
        choice = {"type": choice.get("type"), "function": {"name": choice.get("name")}}
    chat["tool_choice"] = choice
    text = mapping(given, "text")
    check_keys(text, ("format",), "text", {"verbosity": "the template has no word for it"})
    chat["response_format"] = _format(mapping(text, "format"))
    reasoning = mapping(given, "reasoning")
    check_keys(reasoning, ("effort", "summary", "generate_summary"), "reasoning")
    chat["reasoning_effort"] = reasoning.get("effort")
    try:
        asked = read_chat(chat, settings)
    except Failure as failure:
        if failure.param and failure.param.startswith("messages"):
            failure.param = "input" + failure.param.removeprefix("messages")
        raise
    return asked.with_original(given, ignored)


def _messages(given: dict[str, Any]) -> list[dict[str, Any]]:
    said = given.get("input")
    messages = [{"role": "system", "content": given["instructions"]}] if "instructions" in given else []
    if isinstance(said, str):
        return [*messages, {"role": "user", "content": said}]
    if not isinstance(said, list) or not said:
        raise Failure(400, f"input is {shown(said)}, text or a list of items is expected", param="input")
    thought = ""
    for index, item in enumerate(said):
        param = f"input.[{index}]"
        if not isinstance(item, dict):
            raise Failure(400, f"{param} is {shown(item)}, an object is expected", param=param)
        kind = item.get("type", "message")
        if kind == "message":
            check_keys(item, ("type", "role", "content", "id", "status", "phase"), param)
            message = {"role": item.get("role"), "content": _content(item.get("content"), f"{param}.content")}
            if thought and item.get("role") == "assistant":
                message["reasoning_content"], thought = thought, ""
            messages.append(message)
        elif kind == "reasoning":
            parts = item.get("content") if isinstance(item.get("content"), list) else []
            thought += "".join(str(part.get("text", "")) for part in parts or [] if isinstance(part, dict))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if not (messages and messages[-1]["role"] == "assistant"):
                messages.append({"role": "assistant", "content": None})
            if thought:
                messages[-1]["reasoning_content"], thought = thought, ""
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{param}.output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        else:
            raise Failure(400, f"{param}.type is {shown(kind)}, one of {', '.join(ITEMS)} is expected", param=param)
    return messages


def _content(value: Any, param: str) -> Any:
    if not isinstance(value, list):
        return value
    parts = []
    for index, part in enumerate(value):
        here, kind = f"{param}.[{index}]", part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text"):
            check_keys(part, ("type", "text", "annotations", "logprobs"), here)
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "input_image":
            check_keys(part, ("type", "image_url", "detail"), here, {"file_id": "there is no store: send image_url"})
            parts.append(
                {"type": "image_url", "image_url": {"url": part.get("image_url"), "detail": part.get("detail")}}
            )
        elif kind in ("refusal", "image_url", "video_url", "video"):
            parts.append(part)
        else:
            raise Failure(400, f"{here}.type is {shown(kind)}, input_text or input_image is expected", param=here)
    return parts


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise Failure(
            400,
            f"tools holds {shown(kind)}, a tool of type function is expected: the gateway has no tools",
            param="tools",
        )
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _format(form: dict[str, Any]) -> dict[str, Any] | None:
    if form.get("type") != "json_schema":
        return form or None
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


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
