"""Anthropic's own client, which speaks to /v1/messages and nothing else."""

import base64
import json
from typing import Any

from anthropic import Anthropic
from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, ROOT, SHAPES, WAIT, called, report

client = Anthropic(base_url=ROOT, api_key=KEY, max_retries=0)
SOURCE = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE.read_bytes()).decode()}
SHOWN = [{"type": "image", "source": SOURCE}, {"type": "text", "text": QUESTION}]


def asked(content: Any, **options: Any) -> dict[str, Any]:
    said = {"role": "user", "content": content}
    return {"model": MODEL, "messages": [said], "max_tokens": MAX_TOKENS, **options}


def picture() -> str:
    """The answer, whose usage has to agree with what the client counts before it asks."""
    answer = client.messages.create(**asked(SHOWN))
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": SHOWN}])
    if counted.input_tokens != answer.usage.input_tokens:
        raise RuntimeError(f"{counted.input_tokens} tokens counted, {answer.usage.input_tokens} used")
    return answer.content[0].text


def stream() -> list[str]:
    with client.messages.stream(**asked(SHOWN)) as pieces:
        return list(pieces.text_stream)


def structured() -> Any:
    form = {"format": {"type": "json_schema", "schema": SHAPES}}
    return json.loads(client.messages.create(**asked(SHOWN, output_config=form)).content[0].text)


def tool() -> Any:
    wait = {"name": "wait", "description": "Waits.", "input_schema": WAIT}
    choice = {"type": "tool", "name": "wait"}
    (call,) = client.messages.create(**asked(SHOWN, tools=[wait], tool_choice=choice)).content
    return called(call.name, call.input)


report(
    chat=lambda: client.messages.create(**asked(HELLO)).content[0].text,
    picture=picture,
    stream=stream,
    structured=structured,
    tool=tool,
)
