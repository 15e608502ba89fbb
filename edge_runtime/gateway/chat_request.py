"""This module reads the body of POST /v1/chat/completions; the fields have OpenAI's and vLLM's names.

The gateway ignores a field that it does not know and names it in a header of the answer; with `strict` it refuses the
request. It never ignores a field that would change the answer or a limit: it refuses a known field that it does not
support, unless the value is the neutral one, and it refuses a name that is almost a known one, as a slip.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from contract.errors import shown
from contract.sampling import Sampling
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, flag, mapping, nearest
from edge_runtime.gateway.json_body import read_json
from edge_runtime.gateway.messages import read_messages
from edge_runtime.gateway.sampling_fields import PASSED, sampling_of
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.tools import forced_schema, read_tools
from edge_runtime.prompts.chat_template import Message

READ = (
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_effort",
    "mm_processor_kwargs", "repeat_penalty", "thinking_budget",
)  # fmt: skip
IGNORED = (
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "request_id", "cache_salt",
)  # fmt: skip
NEUTRAL: dict[str, Any] = {  # the only value, besides null, that the gateway accepts
    "n": 1, "logit_bias": {}, "modalities": ["text"], "audio": None, "prediction": None,
    "verbosity": None, "web_search_options": None, "functions": None, "function_call": None,
    "spaces_between_special_tokens": True, "include_stop_str_in_output": False,
    "add_generation_prompt": True, "continue_final_message": False, "add_special_tokens": False, "echo": False,
    "include_reasoning": True, "best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "bad_words": [],
    "allowed_token_ids": None, "prompt_logprobs": None, "truncate_prompt_tokens": None, "logits_processors": None,
    "chat_template": None, "documents": None, "return_token_ids": False, "priority": 0,
    "guided_json": None, "guided_regex": None, "guided_choice": None, "guided_grammar": None,
    "options": {}, "num_ctx": None, "num_predict": None, "mirostat": 0, "typical_p": 1.0, "tfs_z": 1.0,
}  # fmt: skip
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
PIXELS = ("min_pixels", "max_pixels")
# Unknown fields: some clients send fifty settings of other engines. A look for a name that is almost one's own takes half
# a millisecond each.
MAX_IGNORED = 128


Reader = Callable[[dict[str, Any], Settings], Any]


@dataclass(frozen=True)
class ChatRequest:
    """One question.

    Attributes:
        messages: the conversation, with a Link in the place of every picture and video.
        sampling: how the server samples.
        tools: the functions that the model may call; None where there are none, or tool_choice is none.
        is_stream: whether the answer is a stream of events.
        includes_usage: whether the last event of a stream has the numbers of tokens.
        is_forced: whether the answer is one call, as bare JSON.
        template: variables for the chat template besides messages and tools.
        fills_context: whether max_tokens is -1, which means as many as the server gives.
        max_calls: the most calls that the gateway returns from one answer; None for all.
        has_running_usage: whether every event of a stream has the numbers of tokens.
        ignored: the names of the fields that the gateway ignores.
        prompt: text or token ids, instead of messages.
        original: what the answer of another endpoint repeats of its body; never its pictures.
    """

    messages: list[Message]
    sampling: Sampling
    tools: list[Any] | None = None
    is_stream: bool = False
    includes_usage: bool = False
    is_forced: bool = False
    template: dict[str, Any] = field(default_factory=dict)
    fills_context: bool = False
    max_calls: int | None = None
    has_running_usage: bool = False
    ignored: tuple[str, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    original: dict[str, Any] = field(default_factory=dict)

    def with_original(self, body: dict[str, Any], ignored: tuple[str, ...]) -> "ChatRequest":
        """The same request, with parts of the body of another endpoint as its origin."""
        return replace(self, original=body, ignored=ignored)

    @property
    def wants_logprobs(self) -> bool:
        return self.sampling.logprobs is not None


def parse(body: bytes | bytearray, settings: Settings, read: Reader | None = None) -> Any:
    """Read a body, as a chat request or with another endpoint's reader.

    Raises:
        Failure: 400 or 404; it names the field.
        InvalidInput: a sampling value is out of its range.
    """
    values = read_json(body)
    if not isinstance(values, dict):
        raise Failure(400, f"the body is {shown(values)}, a JSON object is expected")
    return (read or read_chat)(values, settings)


def read_chat(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """Read a chat request out of the values of a body.

    Raises:
        Failure, InvalidInput: as parse.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*PASSED, *READ, *IGNORED), NEUTRAL, settings)
    check_model(given.get("model"), settings)
    is_stream, options = flag(given, "stream"), mapping(given, "stream_options")
    check_keys(options, ("include_usage", "continuous_usage_stats", "include_obfuscation"), "stream_options")
    if options and not is_stream:
        raise Failure(400, "stream_options is for streams: set stream to true", param="stream_options")
    tools, choice = read_tools(given)
    schema = forced_schema(tools, choice)
    is_parallel = flag(given, "parallel_tool_calls", True)
    return ChatRequest(
        read_messages(given.get("messages"), settings, _item_options(mapping(given, "mm_processor_kwargs"))),
        sampling_of(given, settings.defaults, schema),
        tools if choice != "none" else None,
        is_stream,
        flag(options, "include_usage"),
        schema is not None,
        _template(given),
        -1 in (given.get("max_completion_tokens"), given.get("max_tokens")),
        None if is_parallel else 1,
        flag(options, "continuous_usage_stats"),
        ignored,
    )


def check_fields(
    given: dict[str, Any], known: tuple[str, ...], neutral: dict[str, Any], settings: Settings
) -> tuple[str, ...]:
    """The unknown names, which the gateway ignores.

    Args:
        known: the names that may have any value here.
        neutral: the names of fields that the gateway does not support, each with the only value that may stand there.

    Raises:
        Failure: 400, an unsupported field has another value, or a name is almost a known one; with `strict`, a name is
            unknown; there are more than MAX_IGNORED unknown names.
    """
    ignored = list[str]()
    for name, value in given.items():
        if name in known:
            continue
        if name in neutral:
            if value != neutral[name] or isinstance(value, bool) != isinstance(neutral[name], bool):
                what = "leave it out" if neutral[name] is None else f"leave it out or send {json.dumps(neutral[name])}"
                raise Failure(
                    400, f"{name} is {shown(value)}, which is not supported here: {what}", param=name,
                    code="unsupported_parameter",
                )  # fmt: skip
            continue
        if len(ignored) == MAX_IGNORED:
            raise Failure(
                400, f"the body has more than {MAX_IGNORED} unknown fields, {shown(name)} among them: leave them out",
                param=name[:64], code="unknown_parameter",
            )  # fmt: skip
        near = nearest(name, (*known, *neutral))
        if near or settings.strict:
            hint = f"did you mean {near!r}?" if near else "leave it out (--strict refuses it)"
            raise Failure(400, f"unknown field {shown(name)}: {hint}", param=name[:64], code="unknown_parameter")
        ignored.append(name)
    return tuple(ignored)


def check_model(model: Any, settings: Settings) -> None:
    """Check that the gateway serves a model of this name; None is any.

    Raises:
        Failure: 404, it does not.
    """
    if model is not None and model not in settings.served_model_names:
        raise Failure(
            404,
            f"model is {shown(model)}, served here are {', '.join(settings.served_model_names)}",
            param="model",
            code="model_not_found",
        )


def _template(given: dict[str, Any]) -> dict[str, Any]:
    """The variables for the chat template. reasoning_effort also sets enable_thinking, for templates that read it."""
    variables = dict(mapping(given, "chat_template_kwargs"))
    for name in ("messages", "tools", "add_generation_prompt", "chat_template", "tokenize"):
        if name in variables:
            raise Failure(
                400,
                f"chat_template_kwargs.{name} was sent, the gateway sets it: leave it out",
                param=f"chat_template_kwargs.{name}",
            )
    if (effort := given.get("reasoning_effort")) is not None:
        if effort not in EFFORTS:
            raise Failure(
                400, f"reasoning_effort is {shown(effort)}, one of {', '.join(EFFORTS)} is expected",
                param="reasoning_effort",
            )  # fmt: skip
        variables = {"reasoning_effort": effort, "enable_thinking": effort != "none"} | variables
    return variables


def _item_options(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """mm_processor_kwargs as options for the pictures and videos whose parts have no options."""
    known = (*PIXELS, "fps", "images_kwargs", "videos_kwargs")
    check_keys(values, known, "mm_processor_kwargs")
    both = {name: values[name] for name in PIXELS if values.get(name) is not None}
    options = {"image": dict(both), "video": dict(both)}
    if values.get("fps") is not None:
        options["video"]["fps"] = values["fps"]
    for kind, name, names in (("image", "images_kwargs", PIXELS), ("video", "videos_kwargs", (*PIXELS, "fps"))):
        inner = mapping(values, name)
        check_keys(inner, names, f"mm_processor_kwargs.{name}")
        options[kind] |= {key: value for key, value in inner.items() if value is not None}
    return options
