"""The body of POST /v1/responses, OpenAI's newer endpoint, as a chat request.

The endpoint has no memory here: a request brings its whole conversation.
"""

from typing import Any

from contract.errors import shown
from edge_runtime.gateway.chat_request import ChatRequest, check_fields, read_chat
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, listed, mapping
from edge_runtime.gateway.sampling_fields import PASSED
from edge_runtime.gateway.settings import Settings

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
    return asked.with_original({name: value for name, value in given.items() if name != "input"}, ignored)


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
