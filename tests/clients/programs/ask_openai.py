"""The official client, chat completions."""

from typing import Any

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
from openai import OpenAI
from pydantic import TypeAdapter

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)


def ask(message: Any, **options: Any) -> Any:
    return client.chat.completions.create(
        model=MODEL, messages=[message], max_tokens=MAX_TOKENS, temperature=0, **options
    )


def stream() -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in ask(picture_message(), stream=True)]


def structured() -> Any:
    text = ask(picture_message(), response_format=RESPONSE_FORMAT).choices[0].message.content
    return TypeAdapter(dict[str, Any]).validate_json(text)


def tool() -> Any:
    (call,) = ask(picture_message(), tools=[WAIT_TOOL], tool_choice=WAIT_CHOICE).choices[0].message.tool_calls
    return called(call.function.name, call.function.arguments)


report(
    chat=lambda: ask({"role": "user", "content": HELLO}).choices[0].message.content,
    picture=lambda: ask(picture_message()).choices[0].message.content,
    stream=stream,
    structured=structured,
    tool=tool,
)
