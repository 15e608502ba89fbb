"""The official client, responses."""

import json
from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, QUESTION, SHAPES, URL, WAIT, called, data_url, report
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
SHOWN = [
    {
        "role": "user",
        "content": [{"type": "input_image", "image_url": data_url()}, {"type": "input_text", "text": QUESTION}],
    }
]


def ask(said: Any, **options: Any) -> Any:
    return client.responses.create(model=MODEL, input=said, max_output_tokens=MAX_TOKENS, temperature=0, **options)


def stream() -> list[str]:
    return [event.delta for event in ask(SHOWN, stream=True) if event.type == "response.output_text.delta"]


def structured() -> Any:
    form = {"format": {"type": "json_schema", "name": "shapes", "strict": True, "schema": SHAPES}}
    return json.loads(ask(SHOWN, text=form).output_text)


def tool() -> Any:
    wait = {"type": "function", "name": "wait", "parameters": WAIT, "strict": True}
    (call,) = ask(SHOWN, tools=[wait], tool_choice={"type": "function", "name": "wait"}).output
    return called(call.name, call.arguments)


report(
    chat=lambda: ask(HELLO).output_text,
    picture=lambda: ask(SHOWN).output_text,
    stream=stream,
    structured=structured,
    tool=tool,
)
