"""OpenAI's messages as the chat template wants them, with a Link for every picture and video: nobody has read it yet.

This module builds parts anew from the few fields that it knows: nothing that a client writes reaches the pipeline as a
path. It refuses an unknown key, because it may be a limit with a slip in its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from contract.errors import MediaError, shown
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys
from edge_runtime.gateway.json_body import json_bytes, read_json
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
FRAME_OPTIONS = OPTIONS["video"] - {"fps", "nframes", "min_frames", "max_frames", "video_start", "video_end"}
FRAMES_ARE_CHOSEN = dict.fromkeys(
    OPTIONS["video"] - FRAME_OPTIONS, "the frames of a list are all looked at; sample_fps says how fast they follow"
)
SAYS_NOTHING = ("refusal", "annotations", "audio", "function_call", "provider_specific_fields")  # copied from answers
MESSAGE_KEYS = (
    "role",
    "content",
    "name",
    "tool_call_id",
    "tool_calls",
    "reasoning",
    "reasoning_content",
    *SAYS_NOTHING,
)
LOW_DETAIL_PIXELS = 512 * 512  # OpenAI's `detail: low`
MAX_FRAMES = 1 << 12
TURN_CHARACTERS = 16  # a template writes more for each turn, an empty one too


@dataclass(frozen=True)
class Link:
    """A URL that a client sends."""

    url: str
    param: str  # the place of the URL in the body

    @property
    def is_data(self) -> bool:
        return self.url[:5].lower() == "data:"


def read_messages(values: Any, settings: Settings, defaults: dict[str, dict[str, Any]] | None = None) -> list[Message]:
    """The messages for the pipeline, with a Link (or a list of them) in the place of every source.

    Args:
        values: `messages` of the body.
        defaults: options for the pictures ("image") and videos ("video") whose parts have none.

    Raises:
        Failure: 400; it names the field.
    """
    if not isinstance(values, list) or not values:
        raise Failure(400, f"messages is {shown(values)}, a list of at least one message is expected", param="messages")
    messages = [_message(value, f"messages.[{index}]", defaults or {}) for index, value in enumerate(values)]
    check_counts(messages, settings, "messages")
    return messages


def check_counts(messages: list[Message], settings: Settings, param: str) -> None:
    """Refuse more pictures or videos than the settings allow.

    Raises:
        Failure: 400.
    """
    for kind, allowed in (("image", settings.max_images), ("video", settings.max_videos)):
        if (count := sum(part["type"] == kind for part in media(messages))) > allowed:
            raise Failure(400, f"the request has {count} {kind}s, {allowed} are allowed: send fewer", param=param)


def media(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """The parts that are pictures and videos, in prompt order."""
    for message in messages:
        if isinstance(content := message["content"], list):
            yield from (part for part in content if part["type"] != "text")


def num_characters(messages: list[Message], *beside: Any) -> int:
    """How many characters a template can write of a conversation: its texts, all else as JSON, and the turns' own marks.

    Args:
        beside: what else the template reads: tools, and variables.
    """
    count, others = TURN_CHARACTERS * len(messages), [value for value in beside if value]
    for message in messages:
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        count += sum(map(len, texts)) + len(message.get("reasoning_content", ""))
        others += [message[name] for name in ("name", "tool_call_id", "tool_calls") if message.get(name)]
    return count + sum(len(json_bytes(value)) for value in others)


def _message(value: Any, param: str, defaults: dict[str, dict[str, Any]]) -> Message:
    role = value.get("role") if isinstance(value, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise Failure(
            400,
            f"{param} is {shown(value)}, an object with a role among {', '.join(ROLES)} is expected",
            param=f"{param}.role",
        )
    check_keys(value, MESSAGE_KEYS, param)
    for name in ("audio", "function_call"):
        if value.get(name) is not None:
            raise Failure(400, f"{param}.{name} is not supported here: leave it out", param=f"{param}.{name}")
    message: Message = {"role": ROLES[role], "content": _content(value.get("content"), f"{param}.content", defaults)}
    for name in ("name", "tool_call_id"):
        if value.get(name) is not None:
            message[name] = _text(value[name], f"{param}.{name}")
    reasoning = [
        _text(value[name], f"{param}.{name}") for name in ("reasoning_content", "reasoning") if value.get(name)
    ]
    if reasoning and role == "assistant":
        message["reasoning_content"] = reasoning[0]
    if value.get("tool_calls") is not None:
        message["tool_calls"] = _tool_calls(value["tool_calls"], f"{param}.tool_calls")
    elif value.get("content") is None and role != "assistant":
        raise Failure(400, f"{param}.content is missing, text or a list of parts is expected", param=f"{param}.content")
    return message


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise Failure(400, f"{param} is {shown(value)}, text is expected", param=param)
    return value


def _content(value: Any, param: str, defaults: dict[str, dict[str, Any]]) -> str | list[dict[str, Any]]:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise Failure(400, f"{param} is {shown(value)}, text or a list of parts is expected", param=param)
    return [read_part(part, f"{param}.[{index}]", defaults) for index, part in enumerate(value)]


def read_part(part: Any, param: str, defaults: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One content part, with a Link (or a list of them) in the place of its source.

    Args:
        param: where it stands in the body.
        defaults: as read_messages.

    Raises:
        Failure: 400; it names the field.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        if not isinstance(part.get(kind), str):
            raise Failure(
                400, f"{param}.{kind} is {shown(part.get(kind))}, a text is expected", param=f"{param}.{kind}"
            )
        check_keys(part, ("type", kind, "annotations", "cache_control"), param)
        return {"type": "text", "text": part[kind]}
    if kind not in ("image_url", "video_url", "image", "video"):
        raise Failure(400, f"{param}.type is {shown(kind)}, text, image_url or video_url is expected", param=param)
    name = kind.removesuffix("_url")
    source, own = _source(part.get(kind), name, f"{param}.{kind}")
    if is_list := isinstance(source, list):
        check_keys(part, {"type", kind} | FRAME_OPTIONS, param, FRAMES_ARE_CHOSEN)
    check_keys(part, {"type", kind} | OPTIONS[name], param)
    options = {key: part[key] for key in OPTIONS[name] & part.keys() if part[key] is not None}
    allowed = FRAME_OPTIONS if is_list else OPTIONS[name]
    options = options or own or {key: value for key, value in defaults.get(name, {}).items() if key in allowed}
    try:
        (PictureOptions if name == "image" else VideoOptions).of(options)
    except MediaError as error:
        wrong = next((f"{param}.{key}" for key in options if str(error).startswith(key)), param)
        raise Failure(400, str(error), param=wrong, code="invalid_media") from error
    return {"type": name, name: source, **options}


def _source(value: Any, name: str, param: str) -> tuple[Link | list[Link], dict[str, Any]]:
    """The link or links of a part, and the options that stand beside its URL."""
    own: dict[str, Any] = {}
    if isinstance(value, dict):
        beside = f"it stands beside {name}_url, not in it"
        check_keys(value, ("url", "detail"), param, dict.fromkeys(OPTIONS[name], beside))
        if (detail := value.get("detail")) not in (None, "auto", "low", "high", "original"):
            raise Failure(400, f"{param}.detail is {shown(detail)}, auto, low or high is expected", param=param)
        if detail == "low" and name == "image":
            own = {"max_pixels": LOW_DETAIL_PIXELS}
        value = value.get("url")
    if isinstance(value, list) and name == "video":
        if not 0 < len(value) <= MAX_FRAMES:
            raise Failure(400, f"{param} has {len(value)} frames, 1 to {MAX_FRAMES} are expected", param=param)
        return [_link(frame, f"{param}.[{index}]") for index, frame in enumerate(value)], own
    return _link(value, param), own


def _link(url: Any, param: str) -> Link:
    scheme = url[:8].lower() if isinstance(url, str) else ""
    if not scheme.startswith(SCHEMES):
        raise Failure(
            400, f"{param}.url is {shown(url)}, a URL that begins with {', '.join(SCHEMES)} is expected", param=param
        )
    if not scheme.startswith("data:") and ("\0" in url or "%00" in url):
        raise Failure(400, f"{param}.url has a NUL character: leave it out", param=param)
    return Link(url if scheme.startswith("data:") else scheme + url[8:], param)


def _tool_calls(values: Any, param: str) -> list[dict[str, Any]]:
    """The calls of an earlier turn. Arguments become objects, as templates expect; text that is no JSON stays text."""
    if not isinstance(values, list):
        raise Failure(400, f"{param} is {shown(values)}, a list is expected", param=param)
    calls = []
    for index, value in enumerate(values):
        here = f"{param}.[{index}]"
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Failure(400, f"{here} is {shown(value)}, an object with a function.name is expected", param=here)
        check_keys(value, ("id", "type", "function", "index", "provider_specific_fields"), here)
        check_keys(function, ("name", "arguments", "index"), f"{here}.function")
        arguments = function.get("arguments") or "{}"
        if isinstance(arguments, str):
            try:
                arguments = read_json(arguments.encode())
            except (Failure, UnicodeEncodeError):
                arguments = function["arguments"]
        calls.append(
            {
                "id": value.get("id"),
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
        )
    return calls
