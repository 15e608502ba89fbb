"""LangChain's ChatOpenAI."""

from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, URL, called, picture_message, report
from form_models import Shapes, Wait
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool as as_tool
from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, temperature=0, max_tokens=MAX_TOKENS, max_retries=0)
shown = [HumanMessage(content=picture_message()["content"])]


@as_tool(args_schema=Wait)
def wait(seconds: int) -> str:
    """Waits."""
    return f"{seconds} s"


def tool() -> Any:
    (call,) = model.bind_tools([wait], tool_choice="wait").invoke(shown).tool_calls
    return called(call["name"], call["args"])


report(
    chat=lambda: model.invoke(HELLO).content,
    picture=lambda: model.invoke(shown).content,
    stream=lambda: [chunk.content for chunk in model.stream(shown)],
    structured=lambda: model.with_structured_output(Shapes, method="json_schema").invoke(shown).model_dump(),
    tool=tool,
)
