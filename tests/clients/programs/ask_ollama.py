"""Ollama's client, with its own endpoint. It cannot force a tool."""

import json
from typing import Any

from asks import HELLO, MAX_TOKENS, MODEL, PICTURE, QUESTION, ROOT, SHAPES, report
from ollama import Client

client = Client(ROOT)
assert MODEL in [model.model for model in client.list().models]
shown = {"role": "user", "content": QUESTION, "images": [str(PICTURE)]}


def ask(message: Any, **options: Any) -> Any:
    return client.chat(MODEL, [message], options={"temperature": 0, "num_predict": MAX_TOKENS}, **options)


report(
    chat=lambda: ask({"role": "user", "content": HELLO}).message.content,
    picture=lambda: ask(shown).message.content,
    stream=lambda: [piece.message.content or "" for piece in ask(shown, stream=True)],
    structured=lambda: json.loads(ask(shown, format=SHAPES).message.content),
)
