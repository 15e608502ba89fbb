"""Sampling parameters under vLLM's names; the server checks them once, where they arrive."""

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from contract.errors import InvalidInput, shortened, shown
from contract.nesting import nesting

MAX_CHARACTERS = 1 << 18  # the whole JSON object; from_json counts them before it parses
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_STOP_IDS = 1024
MAX_DEPTH = 64  # levels of structured_outputs
MIN_REPETITION_PENALTY = 0.01
MAX_LOGPROBS = 20


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False, above: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if not right or not (low < value if above else low <= value) or not value <= high:
        noun = "a whole number" if whole else "a number"
        raise InvalidInput(
            f"sampling_parameters.{name} is {shown(value)}, {noun} {'above' if above else 'from'} {low} to {high} is "
            "allowed",
            check="sampling-value",
        )


@dataclass(frozen=True)
class Sampling:
    """How the server chooses tokens and when it stops. temperature 0 is greedy; None leaves a filter off.

    With max_tokens 0 the server computes nothing: it keeps the items and answers their keys. logprobs asks for the
    log-probability of each token and of that many likeliest ones, before penalties and temperature. Where
    skip_special_tokens is false, the text shows special tokens, but never the one that ends the answer.
    structured_outputs is vLLM's object, with one of json, json_object, regex, choice and grammar. thinking_token_budget
    is the most tokens between the marks of contract.thinking; then the closing mark comes.

    Raises:
        InvalidInput: a value is out of its range.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    structured_outputs: dict[str, Any] | None = None
    thinking_token_budget: int | None = None

    def __post_init__(self) -> None:
        _number("max_tokens", self.max_tokens, 0, 1 << 20, whole=True)
        _number("min_tokens", self.min_tokens, 0, self.max_tokens, whole=True)
        _number("temperature", self.temperature, 0, 100)
        _number("top_p", self.top_p, 0, 1, above=True)
        _number("top_k", self.top_k, -1, 1 << 20, whole=True)
        _number("min_p", self.min_p, 0, 1)
        _number("repetition_penalty", self.repetition_penalty, MIN_REPETITION_PENALTY, 100)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        if self.logprobs is not None:
            _number("logprobs", self.logprobs, 0, MAX_LOGPROBS, whole=True)
        if self.seed is not None:
            _number("seed", self.seed, 0, (1 << 63) - 1, whole=True)
        if self.thinking_token_budget is not None:
            _number("thinking_token_budget", self.thinking_token_budget, 0, 1 << 20, whole=True)
        for name in ("ignore_eos", "skip_special_tokens"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidInput(
                    f"sampling_parameters.{name} is {shown(value)}, true or false is allowed", check="sampling-flag"
                )
        if len(self.stop) > MAX_STOPS or not all(
            isinstance(s, str) and 0 < len(s) <= MAX_STOP_CHARACTERS for s in self.stop
        ):
            raise InvalidInput(
                f"sampling_parameters.stop is {shown(list(self.stop))}, up to {MAX_STOPS} non-empty strings of up to "
                f"{MAX_STOP_CHARACTERS} characters are allowed",
                check="stop",
            )
        if self.structured_outputs is not None and not isinstance(self.structured_outputs, dict):
            raise InvalidInput(
                f"sampling_parameters.structured_outputs is {shown(self.structured_outputs)}, an object is expected",
                check="structured-outputs",
            )
        if (depth := nesting(self.structured_outputs)) > MAX_DEPTH:
            raise InvalidInput(
                f"sampling_parameters.structured_outputs is {depth} levels deep, {MAX_DEPTH} are allowed",
                check="structured-depth",
            )
        if len(self.stop_token_ids) > MAX_STOP_IDS:
            raise InvalidInput(
                f"sampling_parameters.stop_token_ids has {len(self.stop_token_ids)} ids, {MAX_STOP_IDS} are allowed",
                check="stop-ids",
            )
        for token in self.stop_token_ids:
            _number("stop_token_ids", token, 0, (1 << 31) - 1, whole=True)

    @classmethod
    def from_json(cls, text: str | bytes, defaults: "Sampling | None" = None) -> "Sampling":
        """Parse a JSON object; names that it does not give keep their default.

        Args:
            defaults: the defaults; None takes those of this class.

        Raises:
            InvalidInput: the text is too long or no JSON object, a name is unknown, or a value is out of range.
        """
        if len(text) > MAX_CHARACTERS:
            raise InvalidInput(
                f"sampling_parameters has {len(text)} characters, {MAX_CHARACTERS} are allowed", check="sampling-length"
            )
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"sampling_parameters is no JSON: {shortened(str(error))}", check="json") from error
        if not isinstance(values, dict):
            raise InvalidInput(
                f"sampling_parameters is {type(values).__name__}, a JSON object is expected", check="json-object"
            )
        return cls.from_dict(values, defaults)

    @classmethod
    def from_dict(cls, values: dict[str, Any], defaults: "Sampling | None" = None) -> "Sampling":
        """Like from_json, for an object that the caller has parsed; a name with the value None keeps its default."""
        allowed = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - allowed):
            raise InvalidInput(
                f"sampling_parameters has {shown(unknown[0])}, allowed are {', '.join(sorted(allowed))}",
                check="sampling-name",
            )
        given = {k: v for k, v in values.items() if v is not None}
        for name in ("stop", "stop_token_ids"):
            if name in given:
                value = given[name]
                if name == "stop" and isinstance(value, str):
                    value = [value]
                if not isinstance(value, (list, tuple)):
                    raise InvalidInput(
                        f"sampling_parameters.{name} is {shown(value)}, a list is expected", check="sampling-list"
                    )
                given[name] = tuple(value)
        if defaults is None:
            return cls(**given)
        return replace(defaults, **given) if given else defaults
