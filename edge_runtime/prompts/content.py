"""The pictures and videos among chat messages, in the order the chat template meets them.

A part is a picture or a video by the rule of Qwen3-VL's own template, so that pads and items never come apart.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from contract.errors import InvalidInput, MediaError, shortened, shown
from edge_runtime.items.options import names, unknown_key
from edge_runtime.items.picture_options import PictureOptions
from edge_runtime.items.video_options import VideoOptions
from edge_runtime.media.access import MediaAccess
from edge_runtime.prompts.chat_template import Message

MESSAGE_KEYS = (
    "role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking",
    "refusal", "annotations", "audio", "function_call",
)  # fmt: skip
TEXT_KEYS = ("type", "text", "refusal", "annotations", "cache_control")
LINK_KEYS = ("url", "detail")
SOURCES = ("path", "url", "cache_control", "type")
KEYS = {
    "image": ("image", "image_url", *SOURCES, *names(PictureOptions)),
    "video": ("video", "video_url", *SOURCES, *names(VideoOptions)),
}
ONLY_VIDEOS = dict.fromkeys(set(names(VideoOptions)) - set(names(PictureOptions)), "it is for videos")
ANYTHING_LOCAL = MediaAccess()


@dataclass(frozen=True)
class MediaPart:
    """One picture or video of a conversation.

    Attributes:
        source: what `access` made of its source.
        options: what the message says about it; their type tells which of the two it is.
        name: the last part of the path or URL in the message, for errors; "" where the message has none.
    """

    source: Any
    options: PictureOptions | VideoOptions
    name: str = ""


def _name(source: Any) -> str:
    is_named = isinstance(source, str | os.PathLike) and str(source)[:5].lower() != "data:"
    return shortened(PurePath(source).name) if is_named else ""


def _source(part: dict[str, Any], kind: str) -> Any:
    """The source in a part: transformers' `image`, `video`, `path` or `url`, or OpenAI's `image_url` or `video_url`."""
    if wrong := unknown_key(part, KEYS[kind], ONLY_VIDEOS if kind == "image" else None):
        raise MediaError(f"content part: {wrong}")
    value = part.get(f"{kind}_url")
    if isinstance(value, dict):
        beside = dict.fromkeys(KEYS[kind], f"it stands beside {kind}_url, not in it")
        if wrong := unknown_key(value, LINK_KEYS, beside):
            raise MediaError(f"{kind}_url: {wrong}")
        value = value.get("url")
    if value is None:
        value = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
    if value is None:
        noun = "picture" if kind == "image" else kind
        raise MediaError(f"content part {shown(sorted(part))} has no {noun}: give {kind}, path, url or {kind}_url")
    return value


def _parts(message: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(message, dict):
        raise InvalidInput(f"messages holds {type(message).__name__}, objects with role and content are expected")
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            raise MediaError(f"content part is {type(part).__name__}, an object is expected")
        yield part


def check_keys(messages: list[Message], template: str) -> None:
    """Check the keys of messages; a key may be one of chat messages, or one that this chat template names.

    Raises:
        InvalidInput: a key is unknown.
    """
    for place, message in enumerate(messages):
        if isinstance(message, dict):
            read = {name: value for name, value in message.items() if not (isinstance(name, str) and name in template)}
            if wrong := unknown_key(read, MESSAGE_KEYS):
                raise InvalidInput(f"messages[{place}]: {wrong}")


def _is_picture(part: dict[str, Any]) -> bool:
    return part.get("type") in ("image", "image_url") or "image" in part or "image_url" in part


def num_pictures(messages: list[Message]) -> int:
    """How many pictures the messages show; this call reads none of them.

    Raises:
        InvalidInput: messages is no list of objects.
        MediaError: a part is no object.
    """
    return sum(_is_picture(part) for message in _listed(messages) for part in _parts(message))


def _listed(messages: Any) -> list[Message]:
    if not isinstance(messages, list):
        raise InvalidInput(f"messages is {type(messages).__name__}, a list is expected")
    return messages


def media_parts(messages: list[Message], access: MediaAccess = ANYTHING_LOCAL) -> Iterator[MediaPart]:
    """The pictures and videos in prompt order; `access` resolves their sources.

    Args:
        access: which files and URLs the device may read.

    Raises:
        InvalidInput: messages is no list of objects.
        MediaError: a part is neither text, picture nor video, its options are wrong, `access` does not allow its
            source, or the source cannot be read.
    """
    for message in _listed(messages):
        for part in _parts(message):
            kind = part.get("type")
            if _is_picture(part):
                source, picture_options = _source(part, "image"), PictureOptions.of(part)
                yield MediaPart(access(source, "picture"), picture_options, _name(source))
            elif kind in ("video", "video_url") or "video" in part:
                source, video_options = _source(part, "video"), VideoOptions.of(part)
                yield MediaPart(access(source, "video"), video_options, _name(source))
            elif "text" not in part:  # the template would leave it out
                raise MediaError(
                    f"content part {shown(sorted(part))} has type {shown(kind)}, text, image or video is expected"
                )
            elif wrong := unknown_key(part, TEXT_KEYS):
                raise MediaError(f"content part: {wrong}")


def plain(messages: list[Message]) -> list[Message]:
    """The messages, in which `image` and `video` parts, as chat templates know them, replace OpenAI's parts.

    transformers' processors do the same with pictures (`_normalize_conversations`).
    """

    def renamed(part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url" and "image_url" in part:
            link = part["image_url"]
            return {"type": "image", "url": link.get("url", "") if isinstance(link, dict) else link}
        return {"type": "video"} if kind == "video_url" else part

    return [
        {**message, "content": [renamed(part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
