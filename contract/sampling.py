"""Sampling parameters under vLLM's names, checked once where they arrive."""

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from contract.errors import InvalidInput

MAX_STOPS = 16
MAX_LOGPROBS = 20


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False, above: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if not right or not (low < value if above else low <= value) or not value <= high:
        noun = "a whole number" if whole else "a number"
        raise InvalidInput(
            f"sampling_parameters.{name} is {value!r}, {noun} {'above' if above else 'from'} {low} to {high} is allowed"
        )


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop. temperature 0 is greedy; None leaves a filter off.

    max_tokens 0 computes nothing: the items are kept and their keys answered. logprobs asks for the log-probability of
    each token and of that many likeliest ones, before penalties and temperature. structured_outputs is vLLM's object
    (json, regex, choice, grammar), for engines that have it.

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
    structured_outputs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _number("max_tokens", self.max_tokens, 0, 1 << 20, whole=True)
        _number("min_tokens", self.min_tokens, 0, self.max_tokens, whole=True)
        _number("temperature", self.temperature, 0, 100)
        _number("top_p", self.top_p, 0, 1, above=True)
        _number("top_k", self.top_k, -1, 1 << 20, whole=True)
        _number("min_p", self.min_p, 0, 1)
        _number("repetition_penalty", self.repetition_penalty, 0, 100, above=True)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        if self.logprobs is not None:
            _number("logprobs", self.logprobs, 0, MAX_LOGPROBS, whole=True)
        if self.seed is not None:
            _number("seed", self.seed, 0, (1 << 63) - 1, whole=True)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidInput(f"sampling_parameters.ignore_eos is {self.ignore_eos!r}, true or false is allowed")
        if len(self.stop) > MAX_STOPS or not all(isinstance(s, str) and s for s in self.stop):
            raise InvalidInput(
                f"sampling_parameters.stop is {list(self.stop)!r}, up to {MAX_STOPS} non-empty strings are allowed"
            )
        if self.structured_outputs is not None and not isinstance(self.structured_outputs, dict):
            raise InvalidInput(
                f"sampling_parameters.structured_outputs is {self.structured_outputs!r}, an object is expected"
            )
        for token in self.stop_token_ids:
            _number("stop_token_ids", token, 0, (1 << 31) - 1, whole=True)

    @classmethod
    def from_json(cls, text: str | bytes, defaults: "Sampling | None" = None) -> "Sampling":
        """Parse a JSON object; names it does not give keep their default.

        Raises:
            InvalidInput: no JSON object, an unknown name, or a value out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"sampling_parameters is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise InvalidInput(f"sampling_parameters is {type(values).__name__}, a JSON object is expected")
        return cls.from_dict(values, defaults)

    @classmethod
    def from_dict(cls, values: dict[str, Any], defaults: "Sampling | None" = None) -> "Sampling":
        """Like from_json, for values already parsed."""
        allowed = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - allowed):
            raise InvalidInput(f"sampling_parameters has {unknown[0]!r}, allowed are {', '.join(sorted(allowed))}")
        given = {k: v for k, v in values.items() if v is not None}
        for name in ("stop", "stop_token_ids"):
            if name in given:
                value = given[name]
                if name == "stop" and isinstance(value, str):
                    value = [value]
                if not isinstance(value, (list, tuple)):
                    raise InvalidInput(f"sampling_parameters.{name} is {value!r}, a list is expected")
                given[name] = tuple(value)
        if defaults is None:
            return cls(**given)
        return replace(defaults, **given) if given else defaults
