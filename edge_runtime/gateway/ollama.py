"""POST /api/chat and GET /api/tags in Ollama's form, which home automation speaks: answers are lines of JSON."""

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from contract.errors import shown
from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import ChatRequest, check_fields, read_chat
from edge_runtime.gateway.completion import shown_logprob
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, flag, mapping, whole
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.tool_calls import as_object
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta

SAME = ("model", "tools", "logprobs", "top_logprobs")
READ = ("messages", "stream", "format", "options", "think", "keep_alive")
LATEST = ":latest"  # Ollama's clients write it behind a name
SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "seed", "stop", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
ABOUT_THE_MACHINE = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "use_mmap", "low_vram",
)  # fmt: skip
NEUTRAL_OPTIONS = {"mirostat": 0, "typical_p": 1.0, "tfs_z": 1.0}
MESSAGE = {"role": "role", "content": "content", "thinking": "reasoning_content", "tool_name": "name"}


def read_ollama(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The chat request that a body of /api/chat means. Ollama streams where nothing is said.

    Raises:
        Failure: 400 or 404; it names the field.
        InvalidInput: a sampling value is out of its range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*SAME, *READ), {}, settings)
    chat = {name: given[name] for name in SAME if name in given and given[name] != []}
    if isinstance(model := chat.get("model"), str):
        chat["model"] = model.removesuffix(LATEST)
    chat |= {"stream": flag(given, "stream", True), **_options(mapping(given, "options"))}
    if isinstance(said := given.get("messages"), list):
        said = [_message(item, f"messages.[{index}]") for index, item in enumerate(said)]
    chat["messages"] = said  # the chat request refuses no list
    if (form := given.get("format")) not in (None, ""):
        schema = {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}
        chat["response_format"] = {"type": "json_object"} if form == "json" else schema
    if (think := given.get("think")) is not None:
        switch: dict[str, Any] = {"reasoning_effort": think} if isinstance(think, str) else {}
        chat |= switch or {"chat_template_kwargs": {"enable_thinking": flag(given, "think")}}
    return read_chat(chat, settings).with_original({"model": given.get("model")}, ignored)


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """`options` under the names of a chat request. The gateway ignores those that only say how to use the machine."""
    check_keys(options, (*SAMPLING, *ABOUT_THE_MACHINE, *NEUTRAL_OPTIONS, "num_predict"), "options")
    for name, neutral in NEUTRAL_OPTIONS.items():
        if options.get(name) not in (None, neutral):
            raise Failure(
                400, f"options.{name} is {shown(options[name])}, which is not supported here: leave it out or send {neutral}",
                param=f"options.{name}",
            )  # fmt: skip
    read = {name: options[name] for name in SAMPLING if options.get(name) is not None}
    if (most := whole(options, "num_predict", -2, 1 << 20)) is not None:
        read["max_tokens"] = -1 if most < 0 else most  # -2 fills the context, and -1 has no end
    return read


def _message(item: Any, param: str) -> dict[str, Any]:
    """A message as OpenAI's: its pictures, which are bare base64, stand before its text."""
    if not isinstance(item, dict):
        raise Failure(400, f"{param} is {shown(item)}, an object is expected", param=param)
    check_keys(item, (*MESSAGE, "images", "tool_calls"), param)
    message = {name: item[key] for key, name in MESSAGE.items() if item.get(key) is not None}
    if not isinstance(pictures := item.get("images") or [], list):
        raise Failure(400, f"{param}.images is {shown(pictures)}, a list is expected", param=f"{param}.images")
    if pictures:
        urls = [f"data:image/*;base64,{picture}" for picture in pictures]
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        message["content"] = [*parts, {"type": "text", "text": item.get("content") or ""}]
    return message | ({"tool_calls": calls} if (calls := item.get("tool_calls")) else {})


def tags(names: Sequence[str]) -> dict[str, Any]:
    """Ollama's list of models."""
    facts = {"modified_at": _now(), "size": 0, "digest": "", "details": {"families": ["edge-vlm"]}}
    return {"models": [{"name": name, "model": name, **facts} for name in names]}


def error_body(failure: Failure) -> dict[str, Any]:
    """Ollama's error, in an answer and in a line of a stream."""
    return {"error": str(failure)}


class OllamaAnswer:
    """An answer as Ollama's lines, or as one object."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens, is_thinking: bool | None = None) -> None:
        self._reader, self._prompt, self._is_stream = AnswerReader(chat, is_thinking), prompt, chat.is_stream
        self._model, self._begun, self._first = chat.original.get("model") or model, time.monotonic_ns(), 0
        self._text, self._thoughts = "", ""
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []

    def first(self) -> list[dict[str, Any]]:
        return []

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        self._first = self._first or time.monotonic_ns()
        piece = self._reader.add(delta)
        self._text, self._thoughts = self._text + piece.text, self._thoughts + piece.reasoning
        self._calls += [{"function": _function(call["function"])} for call in piece.calls]
        self._logprobs += map(shown_logprob, delta.logprobs)
        has_news = self._text or self._thoughts or self._calls or self._logprobs
        return [self._taken() | {"done": False}] if self._is_stream and has_news else []

    def last(self) -> list[dict[str, Any]]:
        return [self.whole()]

    def whole(self) -> dict[str, Any]:
        now = time.monotonic_ns()
        times = {"total_duration": now - self._begun, "load_duration": 0, "eval_duration": now - self._first}
        times["prompt_eval_duration"] = self._first - self._begun
        counts = {"prompt_eval_count": self._prompt.total, "eval_count": self._reader.num_tokens}
        reason = "length" if self._reader.reason == "length" else "stop"
        return self._taken() | {"done": True, "done_reason": reason, **times, **counts}

    def _taken(self) -> dict[str, Any]:
        """What has come since the last line."""
        message: dict[str, Any] = {"role": "assistant", "content": self._text}
        message |= {"thinking": self._thoughts} if self._thoughts else {}
        message |= {"tool_calls": self._calls} if self._calls else {}
        line = {"model": self._model, "created_at": _now(), "message": message}
        line |= {"logprobs": self._logprobs} if self._logprobs else {}
        self._text, self._thoughts, self._calls, self._logprobs = "", "", [], []
        return line


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": as_object(function["arguments"])}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
