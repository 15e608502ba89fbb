"""Instructor: structured answers by a schema, and by a tool that it forces."""

from typing import Any

import instructor
from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, URL, called, report
from form_models import Shapes, Wait
from openai import OpenAI

plain = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
by_schema = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
by_tool = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)


def ask(client: Any, *content: Any, model: Any = None, **options: Any) -> Any:
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": list(content)}], max_tokens=MAX_TOKENS, temperature=0,
        response_model=model, max_retries=1, **options,
    )  # fmt: skip


shown = [instructor.Image.from_path(str(PICTURE)), QUESTION]
report(
    chat=lambda: ask(by_tool, HELLO).choices[0].message.content,
    picture=lambda: ask(by_tool, *shown).choices[0].message.content,
    stream=lambda: [chunk.choices[0].delta.content or "" for chunk in ask(by_tool, *shown, stream=True)],
    structured=lambda: ask(by_schema, *shown, model=Shapes).model_dump(),
    tool=lambda: called("wait", ask(by_tool, *shown, model=Wait).model_dump()),
)
