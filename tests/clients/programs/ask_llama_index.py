"""LlamaIndex's OpenAILike."""

from typing import Any

from asks import HELLO, KEY, MAX_TOKENS, MODEL, PICTURE, QUESTION, RESPONSE_FORMAT, URL, called, report
from form_models import Shapes, Wait
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

model = OpenAILike(
    model=MODEL, api_base=URL, api_key=KEY, is_chat_model=True, is_function_calling_model=True, temperature=0,
    max_tokens=MAX_TOKENS, max_retries=0, context_window=1024,
)  # fmt: skip
shown = [ChatMessage(role="user", blocks=[ImageBlock(path=PICTURE), TextBlock(text=QUESTION)])]


def wait(seconds: int) -> str:
    """Waits."""
    return f"{seconds} s"


def tool() -> Any:
    tools = [FunctionTool.from_defaults(wait, fn_schema=Wait)]
    answer = model.chat_with_tools(tools, chat_history=shown, tool_required=True)
    (call,) = model.get_tool_calls_from_response(answer)
    return called(call.tool_name, call.tool_kwargs)


report(
    chat=lambda: model.chat([ChatMessage(HELLO)]).message.content,
    picture=lambda: model.chat(shown).message.content,
    stream=lambda: [piece.delta or "" for piece in model.stream_chat(shown)],
    structured=lambda: Shapes.model_validate_json(
        model.chat(shown, response_format=RESPONSE_FORMAT).message.content
    ).model_dump(),
    tool=tool,
)
