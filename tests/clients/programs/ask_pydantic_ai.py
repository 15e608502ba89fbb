"""Pydantic AI: an agent, structured answers by a schema, and by a tool that it forces."""

from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, URL, called, report
from form_models import Shapes, Wait
from pydantic_ai import Agent, BinaryContent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=URL, api_key=KEY))
shown = [BinaryContent(PICTURE.read_bytes(), media_type="image/png"), QUESTION]


def agent(output: Any = str) -> Any:
    return Agent(model, output_type=output, model_settings={"temperature": 0, "max_tokens": MAX_TOKENS})


async def stream() -> list[str]:
    async with agent().run_stream(shown) as answer:
        return [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]


report(
    chat=lambda: agent().run_sync(HELLO).output,
    picture=lambda: agent().run_sync(shown).output,
    stream=stream,
    structured=lambda: agent(NativeOutput(Shapes)).run_sync(shown).output.model_dump(),
    tool=lambda: called("wait", agent(ToolOutput(Wait, name="wait")).run_sync(shown).output.model_dump()),
)
