"""LiteLLM, which speaks to any OpenAI server under the prefix openai/."""

import json
from typing import Any

import litellm
from asks import (
    HELLO,
    KEY,
    MAX_TOKENS,
    MODEL,
    RESPONSE_FORMAT,
    URL,
    WAIT_CHOICE,
    WAIT_TOOL,
    called,
    picture_message,
    report,
)


def ask(message: Any, **options: Any) -> Any:
    return litellm.completion(
        model=f"openai/{MODEL}", api_base=URL, api_key=KEY, messages=[message], max_tokens=MAX_TOKENS, temperature=0,
        **options,
    )  # fmt: skip


def tool() -> Any:
    (call,) = ask(picture_message(), tools=[WAIT_TOOL], tool_choice=WAIT_CHOICE).choices[0].message.tool_calls
    return called(call.function.name, call.function.arguments)


report(
    chat=lambda: ask({"role": "user", "content": HELLO}).choices[0].message.content,
    picture=lambda: ask(picture_message()).choices[0].message.content,
    stream=lambda: [chunk.choices[0].delta.content or "" for chunk in ask(picture_message(), stream=True)],
    structured=lambda: json.loads(ask(picture_message(), response_format=RESPONSE_FORMAT).choices[0].message.content),
    tool=tool,
)
