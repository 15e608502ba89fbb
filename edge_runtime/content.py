"""The pictures and videos among chat messages, in the order the chat template meets them.

A part is a picture or a video by the rule of Qwen3-VL's own template, so that pads and items never come apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contract.errors import MediaError
from edge_runtime.chat_template import Message
from edge_runtime.fetch import Fetcher
from edge_runtime.video_options import VideoOptions


@dataclass(frozen=True)
class MediaPart:
    """One picture (options is None) or video of a conversation."""

    source: Any
    options: VideoOptions | None = None


def _source(part: dict[str, Any], kind: str) -> Any:
    """What a content part shows: transformers' `image` or `video`, `path`, `url`, or OpenAI's `image_url`, `video_url`."""
    value = part.get(f"{kind}_url")
    if isinstance(value, dict):
        value = value.get("url")
    if value is None:
        value = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
    if value is None:
        noun = "picture" if kind == "image" else kind
        raise MediaError(f"content part {sorted(part)} has no {noun}: give {kind}, path, url or {kind}_url")
    return value


def _fetched(source: Any, fetch: Fetcher | None) -> Any:
    if not isinstance(source, str) or not source.startswith(("http://", "https://")):
        return source
    if fetch is None:
        raise MediaError(f"{source} is not fetched: fetching is off (Pipeline(fetch=Fetcher()) or --fetch allows it)")
    return fetch(source)


def _parts(message: Message) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            raise MediaError(f"content part is {type(part).__name__}, an object is expected")
        yield part


def media_parts(messages: list[Message], fetch: Fetcher | None = None) -> Iterator[MediaPart]:
    """Pictures and videos in prompt order; those behind http and https as the bytes that were fetched.

    Args:
        fetch: reads URLs; None refuses them.

    Raises:
        MediaError: a part names no picture or video, its options are wrong, or its URL may not or cannot be read.
    """
    for message in messages:
        for part in _parts(message):
            kind = part.get("type")
            if kind in ("image", "image_url") or "image" in part or "image_url" in part:
                yield MediaPart(_fetched(_source(part, "image"), fetch))
            elif kind in ("video", "video_url") or "video" in part:
                yield MediaPart(_fetched(_source(part, "video"), fetch), VideoOptions.of(part))


def plain(messages: list[Message]) -> list[Message]:
    """The messages with OpenAI's video_url parts as the `video` parts that chat templates know."""

    def renamed(part: Any) -> Any:
        return {"type": "video"} if isinstance(part, dict) and part.get("type") == "video_url" else part

    return [
        {**message, "content": [renamed(part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
