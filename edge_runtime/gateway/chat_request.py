"""The body of POST /v1/chat/completions, read into what the gateway does with it.

OpenAI's and vLLM's names. A name nobody knows is refused, as OpenAI does: a misspelt limit must not pass for one that holds.
What OpenAI knows and does not change an answer is accepted and ignored; what would change it and is not had here is
refused unless it says the neutral thing.
"""

import json
from dataclasses import dataclass
from typing import Any

from contract.sampling import MAX_LOGPROBS, Sampling
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.messages import read_messages
from edge_runtime.gateway.settings import Settings
from edge_runtime.prompts.chat_template import Message

PASSED = (
    "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty",  # OpenAI's
    "top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "ignore_eos", "structured_outputs",  # vLLM's
)  # fmt: skip
READ = (
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
    "response_format", "tools", "tool_choice",
)  # fmt: skip
IGNORED = (
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip
NEUTRAL: dict[str, Any] = {  # the only value, besides null, that is accepted
    "n": 1, "logit_bias": {}, "modalities": ["text"], "parallel_tool_calls": True, "audio": None, "prediction": None,
    "reasoning_effort": None, "verbosity": None, "web_search_options": None, "functions": None, "function_call": None,
}  # fmt: skip


@dataclass(frozen=True)
class ChatRequest:
    """One question. tools is None where there are none, or tool_choice is none."""

    messages: list[Message]
    sampling: Sampling
    tools: list[Any] | None = None
    is_stream: bool = False
    includes_usage: bool = False

    @property
    def wants_logprobs(self) -> bool:
        return self.sampling.logprobs is not None


def parse(body: bytes | bytearray, settings: Settings) -> ChatRequest:
    """Read a body.

    Raises:
        Failure: 400 or 404, naming the field.
        InvalidInput: a sampling value out of its range.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Failure(400, f"the body is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise Failure(400, "the body must be a JSON object")
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        if name in NEUTRAL:
            if value != NEUTRAL[name] or isinstance(value, bool) != isinstance(NEUTRAL[name], bool):
                only = "" if NEUTRAL[name] is None else f" {name} may only be {json.dumps(NEUTRAL[name])}."
                raise Failure(400, f"{name} is not supported here.{only}", param=name, code="unsupported_parameter")
        elif name not in PASSED + READ + IGNORED:
            raise Failure(400, f"unknown field {name!r}", param=name, code="unknown_parameter")
    _check_model(given.get("model"), settings)
    is_stream, options = _flag(given, "stream"), _object(given, "stream_options")
    if options and not is_stream:
        raise Failure(400, "stream_options is for streams: set stream to true", param="stream_options")
    return ChatRequest(
        read_messages(given.get("messages"), settings),
        _sampling(given, settings.defaults),
        _tools(given),
        is_stream,
        _flag(options, "include_usage"),
    )


def _check_model(model: Any, settings: Settings) -> None:
    if model is not None and model not in settings.served_model_names:
        raise Failure(
            404,
            f"model {model!r} does not exist, served here: {', '.join(settings.served_model_names)}",
            param="model",
            code="model_not_found",
        )


def _sampling(given: dict[str, Any], defaults: Sampling) -> Sampling:
    values = {name: given[name] for name in PASSED if name in given}
    for name in ("max_tokens", "max_completion_tokens"):  # the newer name wins
        if (value := given.get(name)) is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Failure(400, f"{name} is {value!r}, a whole number from 1 is expected", param=name)
            values["max_tokens"] = value
    top = given.get("top_logprobs")
    if top is not None and not _flag(given, "logprobs"):
        raise Failure(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    if _flag(given, "logprobs"):
        top = 0 if top is None else top
        if not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= MAX_LOGPROBS:
            raise Failure(400, f"top_logprobs is {top!r}, 0 to {MAX_LOGPROBS} is expected", param="top_logprobs")
        values["logprobs"] = top
    if (outputs := _structured(_object(given, "response_format"))) is not None:
        values["structured_outputs"] = outputs
    return Sampling.from_dict(values, defaults)


def _structured(form: dict[str, Any]) -> dict[str, Any] | None:
    kind = form.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"json": {"type": "object"}}
    named = form.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise Failure(
            400,
            "response_format must be of type text, json_object, or json_schema with json_schema.schema",
            param="response_format",
        )
    return {"json": schema}


def _tools(given: dict[str, Any]) -> list[Any] | None:
    tools, choice = given.get("tools"), given.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise Failure(
            400,
            "tool_choice is auto or none here: no engine is made to call a tool",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if tools is None:
        return None
    for tool in tools if isinstance(tools, list) else [None]:
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Failure(400, "tools must be a list of functions with a name", param="tools")
    return tools if tools and choice == "auto" else None


def _flag(values: dict[str, Any], name: str) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise Failure(400, f"{name} is {value!r}, true or false is expected", param=name)
    return bool(value)


def _object(values: dict[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise Failure(400, f"{name} is {value!r}, an object is expected", param=name)
    return value
