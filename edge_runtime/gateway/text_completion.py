"""POST /v1/completions and /tokenize: a prompt as it is, without a chat template."""

import time
from typing import Any
from uuid import uuid4

from contract.errors import shown
from contract.sampling import MAX_LOGPROBS, Sampling
from edge_runtime.gateway.chat_request import (
    IGNORED,
    NEUTRAL,
    ChatRequest,
    check_fields,
    check_model,
    read_chat,
)
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, flag, mapping, whole
from edge_runtime.gateway.sampling_fields import PASSED, max_tokens_of
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.usage import PromptTokens, usage
from edge_runtime.request import Delta

MAX_TOKENS = 16  # OpenAI's default here
READ = ("model", "prompt", "stream", "stream_options", "max_tokens", "logprobs")
NEUTRAL_HERE = NEUTRAL | {"suffix": None, "add_special_tokens": True}
TOKENIZE = ("model", "prompt", "messages", "tools", "chat_template_kwargs")


def read_completion(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The request that a body of /v1/completions means.

    Raises:
        Failure: 400 or 404; it names the field.
        InvalidInput: a sampling value is out of its range.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored = check_fields(given, (*PASSED, *READ, *IGNORED), NEUTRAL_HERE, settings)
    check_model(given.get("model"), settings)
    is_stream, options = flag(given, "stream"), mapping(given, "stream_options")
    check_keys(options, ("include_usage", "include_obfuscation"), "stream_options")
    sampling = {name: given[name] for name in PASSED if name in given}
    sampling["max_tokens"] = max_tokens_of(given, ("max_tokens",), MAX_TOKENS)
    sampling["logprobs"] = whole(given, "logprobs", 0, MAX_LOGPROBS)
    if sampling.get("seed") == -1:
        del sampling["seed"]
    return ChatRequest(
        [],
        Sampling.from_dict(sampling, settings.defaults),
        is_stream=is_stream,
        includes_usage=flag(options, "include_usage"),
        fills_context=given.get("max_tokens") == -1,
        ignored=ignored,
        prompt=_prompt(given.get("prompt")),
    )


def read_tokenize(values: dict[str, Any], settings: Settings) -> ChatRequest:
    """The request that a body of /tokenize means: a prompt, or messages.

    Raises:
        Failure: 400 or 404; it names the field.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if "messages" in given:
        return read_chat({name: value for name, value in given.items() if name != "prompt"}, settings)
    check_fields(given, TOKENIZE, NEUTRAL_HERE, settings)
    check_model(given.get("model"), settings)
    return ChatRequest([], settings.defaults, prompt=_prompt(given.get("prompt")))


def _prompt(prompt: Any) -> str | tuple[int, ...]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int and 0 <= token < 1 << 31 for token in prompt):
        return tuple(prompt)
    raise Failure(400, f"prompt is {shown(prompt)}, one text or one list of token ids is expected", param="prompt")


class TextCompletion:
    """An answer as OpenAI's text_completion."""

    def __init__(self, chat: ChatRequest, model: str, prompt: PromptTokens, is_thinking: bool | None = None) -> None:
        self._chat, self._prompt = chat, prompt
        self._head = {
            "id": f"cmpl-{uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._text, self._reason, self._num_tokens = "", "", 0
        self._logprobs: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    def first(self) -> list[dict[str, Any]]:
        return []

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        self._num_tokens += len(delta.token_ids)
        self._reason = delta.finish_reason
        logprobs = self._shown(delta)
        self._text += delta.text
        if not self._chat.is_stream:
            for name, values in (logprobs or {}).items():
                self._logprobs[name] += values
            return []
        return [self._choice(delta.text, logprobs, None)] if delta.text or logprobs else []

    def last(self) -> list[dict[str, Any]]:
        events = [self._choice("", None, self._reason)]
        if self._chat.includes_usage:
            events.append(self._head | {"choices": [], "usage": usage(self._prompt, self._num_tokens)})
        return events

    def whole(self) -> dict[str, Any]:
        logprobs = self._logprobs if self._chat.wants_logprobs else None
        return self._choice(self._text, logprobs, self._reason) | {"usage": usage(self._prompt, self._num_tokens)}

    def _shown(self, delta: Delta) -> dict[str, list[Any]] | None:
        if not delta.logprobs:
            return None
        offset, offsets = len(self._text), []
        for token in delta.logprobs:
            offsets.append(offset)
            offset += len(token["token"])
        return {
            "tokens": [token["token"] for token in delta.logprobs],
            "token_logprobs": [token["logprob"] for token in delta.logprobs],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top"]} for token in delta.logprobs],
            "text_offset": offsets,
        }

    def _choice(self, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._head | {"choices": [choice]}
