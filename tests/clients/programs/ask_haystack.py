"""Haystack's OpenAIChatGenerator."""

import json
from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, URL, WAIT, WAIT_CHOICE, called, report
from form_models import Shapes
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent
from haystack.tools import Tool
from haystack.utils import Secret

wait = Tool(name="wait", description="Waits.", parameters=WAIT, function=lambda seconds: f"{seconds} s")
shown = ChatMessage.from_user(content_parts=[ImageContent.from_file_path(str(PICTURE)), QUESTION])


def ask(message: Any, callback: Any = None, tools: Any = None, **options: Any) -> Any:
    generator = OpenAIChatGenerator(
        api_key=Secret.from_token(KEY), model=MODEL, api_base_url=URL, streaming_callback=callback, tools=tools,
        generation_kwargs={"temperature": 0, "max_tokens": MAX_TOKENS} | options, max_retries=0,
    )  # fmt: skip
    return generator.run([message])["replies"][0]


def stream() -> list[str]:
    pieces: list[str] = []
    ask(shown, lambda chunk: pieces.append(chunk.content))
    return pieces


def tool() -> Any:
    (call,) = ask(shown, tools=[wait], tool_choice=WAIT_CHOICE).tool_calls
    return called(call.tool_name, call.arguments)


report(
    chat=lambda: ask(ChatMessage.from_user(HELLO)).text,
    picture=lambda: ask(shown).text,
    stream=stream,
    structured=lambda: json.loads(ask(shown, response_format=Shapes).text),
    tool=tool,
)
