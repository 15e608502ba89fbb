"""OpenAI's agents SDK, whose default is the responses endpoint."""

from typing import Any

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from asks import HELLO, KEY, MAX_TOKENS, MODEL, QUESTION, URL, called, data_url, report
from form_models import Shapes, Wait
from openai import AsyncOpenAI

set_tracing_disabled(True)
shown = [
    {
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": data_url(), "detail": "auto"},
            {"type": "input_text", "text": QUESTION},
        ],
    }
]
calls = []


@function_tool(strict_mode=True)
def wait(seconds: int) -> str:
    """Waits."""
    calls.append(called("wait", {"seconds": seconds}))
    return "done"


wait.params_json_schema = Wait.model_json_schema()


def agent(**options: Any) -> Any:
    choice = "required" if "tools" in options else None
    return Agent(
        name="looker",
        # a client belongs to one event loop, and each ask has its own
        model=OpenAIResponsesModel(MODEL, AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)),
        model_settings=ModelSettings(temperature=0, max_tokens=MAX_TOKENS, tool_choice=choice),
        **options,
    )


async def ask(said: Any, **options: Any) -> Any:
    return (await Runner.run(agent(**options), said, max_turns=2)).final_output


async def chat() -> str:
    return str(await ask(HELLO))


async def picture() -> str:
    return str(await ask(shown))


async def stream() -> list[str]:
    events = Runner.run_streamed(agent(), shown).stream_events()
    raw = [event.data async for event in events if event.type == "raw_response_event"]
    return [event.delta for event in raw if event.type == "response.output_text.delta"]


async def structured() -> Any:
    return (await ask(shown, output_type=Shapes)).model_dump()


async def tool() -> Any:
    await ask(shown, tools=[wait], tool_use_behavior="stop_on_first_tool")
    (call,) = calls
    return call


report(chat=chat, picture=picture, stream=stream, structured=structured, tool=tool)
