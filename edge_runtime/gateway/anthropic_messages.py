"""POST /v1/messages and its count_tokens in Anthropic's form: this module turns the body into a chat request, and the answer into blocks."""

import json
from typing import Any
from uuid import uuid4

from contract.errors import shown
from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import ChatRequest, check_fields, read_chat
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, listed, mapping, whole
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.tool_calls import as_object
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta

SAME = ("model", "stream", "temperature", "top_p", "top_k", "max_tokens", "metadata", "service_tier")
READ = ("messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config")
NEUTRAL: dict[str, Any] = {"container": None, "mcp_servers": [], "context_management": None}
BLOCKS = ("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking")
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
EFFORTS = {"max": "xhigh"}  # Anthropic's word for the most, and ours; the others are the same
KINDS = {503: "overloaded_error", 504: "timeout_error", 413: "request_too_large"}


def read_anthropic(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The chat request that a body of /v1/messages means.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*SAME, *READ), NEUTRAL, settings)
    if "max_tokens" not in given:
        raise Failure(400, "max_tokens is missing, a whole number from 1 is expected", param="max_tokens")
    chat = {name: given[name] for name in SAME if name in given} | {"stop": given.get("stop_sequences")}
    system = [{"role": "system", "content": _content(given["system"], "system")[0]}] if "system" in given else []
    said = given.get("messages")
    if not isinstance(said, list) or not said:
        raise Failure(400, f"messages is {shown(said)}, a list of at least one message is expected", param="messages")
    chat["messages"] = system + [
        one for index, item in enumerate(said) for one in _message(item, f"messages.[{index}]")
    ]
    chat["tools"] = [_tool(tool, f"tools.[{index}]") for index, tool in enumerate(listed(given, "tools"))] or None
    choice = mapping(given, "tool_choice")
    check_keys(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice")
    kinds = {"auto": "auto", "none": "none", "any": "required", None: None}
    named = {"type": "function", "function": {"name": choice.get("name")}}
    chat["tool_choice"] = (
        kinds.get(choice.get("type"), named) if not isinstance(choice.get("type"), list | dict) else named
    )
    chat["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use", False)
    if thinking := mapping(given, "thinking"):
        check_keys(thinking, ("type", "display", "budget_tokens"), "thinking")
        chat["chat_template_kwargs"] = {"enable_thinking": thinking.get("type") != "disabled"}
        chat["thinking_token_budget"] = whole(thinking, "budget_tokens", 0, 1 << 20)
    output = mapping(given, "output_config")
    check_keys(output, ("format", "effort"), "output_config")
    chat["reasoning_effort"] = (
        EFFORTS.get(effort, effort) if isinstance(effort := output.get("effort"), str) else effort
    )
    chat["response_format"] = _format(mapping(output, "format"))
    return read_chat(chat, settings).with_original({}, ignored)


def read_count(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The chat request that a body of /v1/messages/count_tokens means; it needs no max_tokens.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    return read_anthropic({"max_tokens": 1} | values, settings)


def token_count(ids: list[int], max_model_len: int | None) -> dict[str, Any]:
    """Anthropic's answer to count_tokens."""
    return {"input_tokens": len(ids)}


def _format(form: dict[str, Any]) -> dict[str, Any] | None:
    """The `format` of output_config as a response_format."""
    if not form:
        return None
    check_keys(form, ("type", "schema"), "output_config.format")
    if form.get("type") != "json_schema":
        raise Failure(
            400, f"output_config.format.type is {shown(form.get('type'))}, json_schema is expected",
            param="output_config.format.type",
        )  # fmt: skip
    if not isinstance(form.get("schema"), dict):
        raise Failure(
            400, f"output_config.format.schema is {shown(form.get('schema'))}, an object is expected",
            param="output_config.format.schema",
        )  # fmt: skip
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": form.get("schema")}}


def _message(item: Any, param: str) -> list[dict[str, Any]]:
    """A message as OpenAI's messages: those of the tool results in it come before its text."""
    if not isinstance(item, dict):
        raise Failure(400, f"{param} is {shown(item)}, an object is expected", param=param)
    check_keys(item, ("role", "content"), param)
    if item.get("role") not in ("user", "assistant", "system"):
        raise Failure(
            400, f"{param}.role is {shown(item.get('role'))}, user, assistant or system is expected", param=param
        )
    parts, calls, results, thought = _content(item.get("content"), f"{param}.content")
    message: dict[str, Any] = {"role": item["role"], "content": parts}
    if calls:
        message["tool_calls"] = calls
    if thought:
        message["reasoning_content"] = thought
    return [*results, message] if parts or calls or not results else results


def _content(value: Any, param: str) -> tuple[Any, list[Any], list[Any], str]:
    if isinstance(value, str):
        return value, [], [], ""
    if not isinstance(value, list):
        raise Failure(400, f"{param} is {shown(value)}, text or a list of blocks is expected", param=param)
    parts, calls, results, thought = list[Any](), list[Any](), list[Any](), ""
    for index, block in enumerate(value):
        here, kind = f"{param}.[{index}]", block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            check_keys(block, ("type", "text", "cache_control", "citations"), here)
            parts.append({"type": "text", "text": block.get("text")})
        elif kind == "image":
            check_keys(block, ("type", "source", "cache_control"), here)
            parts.append({"type": "image_url", "image_url": {"url": _url(block.get("source"), here)}})
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            content = _content(block.get("content") or "", f"{here}.content")[0]
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content})
        elif kind == "thinking":
            thought += str(block.get("thinking", ""))
        elif kind != "redacted_thinking":
            raise Failure(400, f"{here}.type is {shown(kind)}, one of {', '.join(BLOCKS)} is expected", param=here)
    return parts, calls, results, thought


def _url(source: Any, param: str) -> Any:
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    if kind == "url":
        return source.get("url")
    raise Failure(400, f"{param}.source.type is {shown(kind)}, base64 or url is expected", param=f"{param}.source")


def _tool(tool: Any, param: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type", "custom") != "custom":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise Failure(
            400, f"{param} is {shown(kind)}, a tool of type custom is expected: the gateway has no tools", param=param
        )
    check_keys(tool, ("type", "name", "description", "input_schema", "strict", "cache_control"), param)
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
        "strict": tool.get("strict"),
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def error_body(failure: Failure) -> dict[str, Any]:
    """Anthropic's error object, in an answer and in a stream."""
    kind = KINDS.get(failure.status) or failure.body()["error"]["type"]
    return {
        "type": "error",
        "error": {"type": "api_error" if kind == "server_error" else kind, "message": str(failure)},
    }


class AnthropicMessage:
    """An answer as Anthropic's content blocks."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens, is_thinking: bool | None = None) -> None:
        self._reader, self._prompt = AnswerReader(chat, is_thinking), prompt
        self._head = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model}
        self._blocks: list[dict[str, Any]] = []
        self._is_open = False

    def first(self) -> list[dict[str, Any]]:
        return [{"type": "message_start", "message": self._message([], None)}]

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        piece, events = self._reader.add(delta), list[dict[str, Any]]()
        for kind, name, text in (("thinking", "thinking", piece.reasoning), ("text", "text", piece.text)):
            if text:
                if not self._is_open or self._blocks[-1]["type"] != kind:
                    more = {"signature": ""} if kind == "thinking" else {}
                    events += self._close() + self._begin({"type": kind, name: "", **more})
                self._blocks[-1][name] += text
                events.append(self._delta({"type": f"{kind}_delta", name: text}))
        for call in piece.calls:
            function = call["function"]
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            events += self._close() + self._begin(block)
            self._blocks[-1]["input"] = as_object(function["arguments"])
            events.append(self._delta({"type": "input_json_delta", "partial_json": function["arguments"]}))
        return events

    def last(self) -> list[dict[str, Any]]:
        said = {"stop_reason": REASONS.get(self._reader.reason, "end_turn"), "stop_sequence": None}
        usage = {"output_tokens": self._reader.num_tokens}
        return [*self._close(), {"type": "message_delta", "delta": said, "usage": usage}, {"type": "message_stop"}]

    def whole(self) -> dict[str, Any]:
        return self._message(self._blocks, REASONS.get(self._reader.reason, "end_turn"))

    def _begin(self, block: dict[str, Any]) -> list[dict[str, Any]]:
        self._blocks.append(block)
        self._is_open = True
        return [{"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": dict(block)}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _close(self) -> list[dict[str, Any]]:
        was_open, self._is_open = self._is_open, False
        return [{"type": "content_block_stop", "index": len(self._blocks) - 1}] if was_open else []

    def _message(self, blocks: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        usage = {"input_tokens": self._prompt.total, "output_tokens": self._reader.num_tokens}
        return self._head | {"content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": usage}
