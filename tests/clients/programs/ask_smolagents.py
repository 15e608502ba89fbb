"""smolagents' model for OpenAI servers, as its agents use it."""

import json
from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, RESPONSE_FORMAT, URL, called, report
from PIL import Image
from smolagents import ChatMessage, MessageRole, OpenAIModel, Tool

model = OpenAIModel(model_id=MODEL, api_base=URL, api_key=KEY, max_tokens=MAX_TOKENS, temperature=0)


class Wait(Tool):
    """The tool that the model must call."""

    name, description, output_type = "wait", "Waits.", "string"
    inputs = {"seconds": {"type": "integer", "description": "how long", "enum": [1, 2]}}  # noqa: RUF012

    def forward(self, seconds: int) -> str:
        return f"{seconds} s"


def said(*content: Any) -> list[Any]:
    return [ChatMessage(role=MessageRole.USER, content=list(content))]


shown = said({"type": "image", "image": Image.open(PICTURE)}, {"type": "text", "text": QUESTION})


def tool() -> Any:
    (call,) = model.generate(shown, tools_to_call_from=[Wait()]).tool_calls  # agents ask for tool_choice required
    return called(call.function.name, call.function.arguments)


report(
    chat=lambda: model.generate(said({"type": "text", "text": HELLO})).content,
    picture=lambda: model.generate(shown).content,
    stream=lambda: [piece.content or "" for piece in model.generate_stream(shown)],
    structured=lambda: json.loads(model.generate(shown, response_format=RESPONSE_FORMAT).content),
    tool=tool,
)
