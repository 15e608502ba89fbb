"""OpenAI's messages as the chat template wants them, with every picture and video named but not yet read.

Parts are built anew from the few fields that are known here: nothing a caller writes reaches the pipeline as a path.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.prompts.chat_template import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
SCHEMES = ("data:", "https://", "http://", "file://")
OPTIONS = {
    "image": frozenset(field.name for field in fields(PictureOptions)),
    "video": frozenset(field.name for field in fields(VideoOptions)),
}


@dataclass(frozen=True)
class Link:
    """A URL that a caller sent."""

    url: str
    param: str  # where it stands in the body


def read_messages(values: Any, settings: Settings) -> list[Message]:
    """Messages for the pipeline, a Link in the place of every source.

    Raises:
        Failure: 400, naming the field.
    """
    if not isinstance(values, list) or not values:
        raise Failure(400, "messages must be a list with at least one message", param="messages")
    messages = [_message(value, f"messages.[{index}]") for index, value in enumerate(values)]
    for kind, allowed in (("image", settings.max_images), ("video", settings.max_videos)):
        if (count := sum(part["type"] == kind for part in media(messages))) > allowed:
            raise Failure(
                400, f"at most {allowed} {kind}(s) may be given in one request, it has {count}", param="messages"
            )
    return messages


def media(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """The parts that are pictures and videos, in prompt order."""
    for message in messages:
        if isinstance(content := message["content"], list):
            yield from (part for part in content if part["type"] != "text")


def _message(value: Any, param: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        raise Failure(400, f"{param} must be an object with a role among {', '.join(ROLES)}", param=f"{param}.role")
    message: Message = {"role": ROLES[value["role"]], "content": _content(value.get("content"), f"{param}.content")}
    for name in ("name", "tool_call_id"):
        if isinstance(value.get(name), str):
            message[name] = value[name]
    if value.get("tool_calls") is not None:
        message["tool_calls"] = _tool_calls(value["tool_calls"], f"{param}.tool_calls")
    elif value.get("content") is None:
        raise Failure(400, f"{param} has no content", param=f"{param}.content")
    return message


def _content(value: Any, param: str) -> str | list[dict[str, Any]]:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise Failure(400, f"{param} must be text or a list of parts", param=param)
    return [_part(part, f"{param}.[{index}]") for index, part in enumerate(value)]


def _part(part: Any, param: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return {"type": "text", "text": part[kind]}
    if kind not in ("image_url", "video_url"):
        raise Failure(400, f"{param} is of type {kind!r}, text, image_url and video_url are known", param=param)
    name = kind.removesuffix("_url")
    url = part.get(kind)
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str) or not url.startswith(SCHEMES):
        raise Failure(400, f"{param}.{kind}.url must begin with {', '.join(SCHEMES)}", param=f"{param}.{kind}")
    options = {key: part[key] for key in OPTIONS[name] & part.keys() if part[key] is not None}
    return {"type": name, name: Link(url, f"{param}.{kind}"), **options}


def _tool_calls(values: Any, param: str) -> list[dict[str, Any]]:
    """Calls of earlier turns. Arguments become objects, as templates expect them; text that is no JSON stays text."""
    if not isinstance(values, list):
        raise Failure(400, f"{param} must be a list", param=param)
    calls = []
    for index, value in enumerate(values):
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Failure(400, f"{param}.[{index}] must have a function with a name", param=param)
        arguments = function.get("arguments") or "{}"
        if isinstance(arguments, str):
            with suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        calls.append(
            {
                "id": value.get("id"),
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    return calls
