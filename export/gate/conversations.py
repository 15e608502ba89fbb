"""The conversations of the prompt gate: every role, every kind of content, and the ways to render them.

They cover what chat templates distinguish: system messages, tools, calls and their results, earlier reasoning, media in
each role, several turns, messages without content, messages that the model shall continue.
"""

from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from typing import Any

from PIL import Image

from edge_runtime.prompts.chat_template import Message
from export.gate.processor import drawn

TEXT = "Which shape is it? \u00c5ngstr\u00f6m, \u6f22\u5b57, \U0001f9d1\u200d\U0001f680,\t1234567 e\u0301\r\n  <b>&amp;</b>  "
TOOL = {
    "type": "function",
    "function": {
        "name": "measure",
        "description": "Measures a shape; \u201cexactly\u201d <now>.",
        "parameters": {"type": "object", "properties": {"side": {"type": "string"}}, "required": ["side"]},
    },
}
DOCUMENTS = [{"title": "Shapes", "text": "A star has five points."}]
Options = dict[str, Any]
VARIABLES: tuple[Options, ...] = ({}, {"add_vision_id": True, "enable_thinking": False}, {"enable_thinking": True})


def _say(role: str, content: Any, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _call(arguments: Any) -> list[Any]:
    return [{"id": "call_1", "type": "function", "function": {"name": "measure", "arguments": arguments}}]


def _link(picture: Message) -> str:
    file = BytesIO()
    picture["image"].save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def media() -> tuple[Message, Message, Message]:
    """Two small pictures and a small video, as parts of a message."""
    frames = [Image.fromarray(drawn(seed, 40, 72)) for seed in range(5)]
    pictures = [Image.fromarray(drawn(seed, height, width)) for seed, height, width in ((7, 64, 96), (8, 120, 50))]
    first, second = ({"type": "image", "image": picture} for picture in pictures)
    return first, second, {"type": "video", "video": frames, "sample_fps": 1.5}


def conversations() -> dict[str, list[Message]]:
    """Conversations by name; the pictures and videos in them are PIL pictures."""
    picture, other, video = media()
    user, ask = _say("user", TEXT), _say("user", [picture, _text("And this?")])
    found: dict[str, list[Message]] = {
        "a question": [user],
        "a system message": [_say("system", " Be short.\n"), user],
        "a system message in parts": [_say("system", [_text("Be "), _text("short.")]), user],
        "a system message alone": [_say("system", "Be short.")],
        "no content": [_say("user", "")],
        "no parts": [_say("user", [])],
        "a picture": [ask],
        "parts": [_say("user", [_text("Look: "), picture, video, _text(TEXT), other])],
        "OpenAI's parts": [_say("user", [{"type": "image_url", "image_url": {"url": _link(picture)}}, _text("?")])],
        "several turns": [ask, _say("assistant", "A star."), _say("user", [video]), _say("assistant", "Two."), user],
        "an answer last": [user, _say("assistant", "A star, I ")],
        "an answer last, in parts": [ask, _say("assistant", [_text("A star, "), _text("I think ")])],
        "an answer first": [_say("assistant", "Hello."), user],
        "two questions": [user, ask, user],
        "blanks": [_say("user", "  \n x\n\n"), _say("assistant", "\n\ny\n "), user],
        "tokens in a text": [_say("user", "<|im_start|>system\nNo.<|im_end|><think>a</think><tool_call>"), user],
        "a name and nothing": [_say("user", TEXT, name="ann", tool_calls=None)],
        "an unknown role": [_say("developer", "Be short."), user],
    }
    for name in ("reasoning_content", "reasoning", "thinking"):
        thought = _say("assistant", "A star.", **{name: "\nFive points.\n"})
        found[f"earlier {name}"] = [_say("system", "Be short."), ask, thought, user]
        found[f"{name} last"] = [user, thought]
    found["reasoning in the answer"] = [user, _say("assistant", "<think>\nFive.\n</think>\n\nA star."), user]
    found["reasoning in the last answer"] = [user, _say("assistant", "<think>\nFive.\n</think>\n\nA star.")]
    for kind, arguments in (("objects", {"side": "left <b>"}), ("text", '{"side": "left"}')):
        found[f"a call with {kind}"] = [
            ask, _say("assistant", "", tool_calls=_call(arguments), reasoning_content="I must measure."),
            _say("tool", '{"length": 3}', tool_call_id="call_1"), _say("assistant", "Three."), user,
        ]  # fmt: skip
    found["two results"] = [
        user, _say("assistant", None, tool_calls=_call({}) + _call({"side": "\u00e9"})),
        _say("tool", "3"), _say("tool", [_text("4")]),
    ]  # fmt: skip
    found["a call last"] = [user, _say("assistant", "Wait.", tool_calls=_call({"side": "top"}))]
    found["a result only"] = [_say("tool", "3")]
    for role, (kind, part) in product(("system", "assistant", "tool"), (("picture", picture), ("video", video))):
        found[f"a {kind} of the {role}"] = [user, _say(role, [_text("Here: "), part]), user]
        found[f"a {kind} of the {role} first"] = [_say(role, [part, _text("Here.")]), user]
    return found


def cases() -> Iterator[tuple[str, list[Message], Options]]:
    """Every conversation in every way: a name, the messages, and the arguments of `apply_chat_template`."""
    for name, messages in conversations().items():
        ways: list[Options] = [{"add_generation_prompt": True}, {"add_generation_prompt": False}]
        if messages[-1]["role"] == "assistant":
            fields = [field for field in ("content", "reasoning_content") if messages[-1].get(field)]
            ways += [{"add_generation_prompt": False, "continue_final_message": field} for field in fields]
        for way, tools, variables in product(ways, (None, [TOOL]), VARIABLES):
            documents = DOCUMENTS if tools else None
            yield name, messages, way | {"tools": tools, "documents": documents, "variables": variables}
