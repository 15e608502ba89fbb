"""What differs between the endpoints: how the gateway reads a body, and which form an answer has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings
from edge_runtime.request import Delta


class Shape(Protocol):
    """Takes the deltas of one answer; returns the events of a stream, or the whole."""

    def first(self) -> list[dict[str, Any]]:
        """The events before all others."""

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """The events of a delta; an empty list where there is nothing to show yet."""

    def last(self) -> list[dict[str, Any]]:
        """The events that end the answer."""

    def whole(self) -> dict[str, Any]:
        """The answer in one piece, where it is no stream."""


def plain_tokens(ids: list[int], max_model_len: int | None) -> dict[str, Any]:
    """vLLM's answer to /tokenize."""
    return {"count": len(ids), "max_model_len": max_model_len, "tokens": ids}


def plain_error(failure: Failure) -> dict[str, Any]:
    """OpenAI's error object."""
    return failure.body()


@dataclass(frozen=True)
class Kind:
    """One endpoint.

    Attributes:
        read: makes the request out of a parsed body: a ChatRequest, or a PooledRequest.
        shape: makes the Shape of an answer from the request, the model's name, the prompt's tokens, and whether the
            prompt ends in reasoning. None answers with the prompt's tokens.
        tokens: makes that answer from the prompt's token ids and the longest prompt.
        names_events: whether events carry their `type` as a name, too.
        ends_with_done: whether a stream ends with the line `data: [DONE]`.
        is_lines: whether a stream is lines of JSON instead of server-sent events.
        error_event: makes the event for an error in a stream.
        error_body: makes the JSON of an error answer.
    """

    read: Callable[[dict[str, Any], Settings], Any]
    shape: Callable[..., Shape] | None
    tokens: Callable[[list[int], int | None], dict[str, Any]] = plain_tokens
    names_events: bool = False
    ends_with_done: bool = True
    is_lines: bool = False
    error_event: Callable[[Failure], dict[str, Any]] = plain_error
    error_body: Callable[[Failure], dict[str, Any]] = plain_error
