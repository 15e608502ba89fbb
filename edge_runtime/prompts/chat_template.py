"""Chat messages to prompt text, with the checkpoint's own Jinja template.

The text is the one that `apply_chat_template` of transformers' processors gives (5.23, processing_utils and
utils.chat_template_utils): the same variables, the same names for an earlier turn's reasoning, the same way to continue
a message. The export compares both before it publishes a bundle.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from contract.errors import BundleError, InvalidInput, shown
from contract.manifest import CHAT_TEMPLATE
from edge_runtime.prompts.environment import TooMuch, compiled, written

Message = dict[str, Any]
REASONING = ("reasoning_content", "thinking", "reasoning")  # a turn's reasoning; the first that a turn has counts
_END = "CONTINUE_FINAL_MESSAGE_TAG "
_OWN = ("messages", "tools", "documents", "add_generation_prompt")


def render(
    template: str,
    messages: list[Message],
    tools: list[Any] | None = None,
    add_generation_prompt: bool = True,
    *,
    documents: list[Any] | None = None,
    continue_final_message: bool | str = False,
    special_tokens: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Prompt text with one pad token per picture or video.

    Args:
        template: the checkpoint's Jinja template.
        messages, tools: as transformers' apply_chat_template takes them.
        add_generation_prompt: end with the start of the assistant's next turn.
        documents: objects with title and text, for templates that retrieve.
        continue_final_message: end inside the last message, so that the model goes on with it; True means its content,
            a name another field (`reasoning_content`). It needs add_generation_prompt False.
        special_tokens: bos_token, eos_token and the others of the tokenizer, as the manifest has them.
        variables: what else a template may read, such as `enable_thinking` or `add_vision_id`; where a name is also one
            of special_tokens, the value in `variables` counts.

    Raises:
        BundleError: the template cannot be compiled.
        InvalidInput: the template refuses the messages or runs too long, an argument has no meaning, or a text holds
            half of a surrogate pair, which is no character.
    """
    if continue_final_message and add_generation_prompt:
        raise InvalidInput("continue_final_message and add_generation_prompt are both set: give one of them")
    if own := set(_OWN) & set(variables or ()):
        raise InvalidInput(f"variables of the chat template hold {min(own)!r}: give it by its own name")
    given = {"messages": messages, "tools": tools, "documents": documents}
    for name, values in given.items():
        if wrong := [value for value in values or () if not isinstance(value, dict)]:
            raise InvalidInput(f"{name} holds {type(wrong[0]).__name__}, objects are expected")
    try:
        read = _data({**(special_tokens or {}), **(variables or {}), **given})
    except RecursionError as error:
        raise InvalidInput("messages: they nest deeper than Python's stack: send flat messages") from error
    chat = [_with_reasoning({k: v for k, v in message.items() if v is not None}) for message in read["messages"]]
    field = "content" if continue_final_message is True else continue_final_message or None
    end = _marked(chat, field, template) if field else ""
    text = _written(template, read | {"messages": chat, "add_generation_prompt": add_generation_prompt})
    if field:
        text = _cut(text, end)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"messages: {text[error.start]!r} is half of a surrogate pair and no character: leave it out"
        ) from error
    return text


def _written(template: str, variables: Mapping[str, Any]) -> str:
    mistakes = (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
    try:
        program = compiled(template)
    except (SyntaxError, RecursionError, MemoryError, *mistakes) as error:  # the first three are Python's compiler's
        raise BundleError(
            f"{CHAT_TEMPLATE} is no template: {shown(str(error))} ({type(error).__name__}): mend it in the checkpoint and export again"
        ) from error
    try:
        return written(program, variables)
    except TooMuch as error:
        raise InvalidInput(f"messages: the chat template is stopped: {error}") from error
    except RecursionError as error:
        raise InvalidInput(
            f"messages: they nest too deeply for the chat template: send flat messages, or mend a {CHAT_TEMPLATE} that calls itself"
        ) from error
    except mistakes as error:
        raise InvalidInput(f"messages: the chat template refuses them: {error}") from error


def _with_reasoning(message: Message) -> Message:
    """A turn's reasoning under the name that today's templates read, and under `thinking` for older ones."""
    found = next((message[name] for name in REASONING if name in message), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _marked(chat: list[Message], field: str, template: str) -> str:
    """Put a mark behind the text that the model continues; returns that text."""
    value = chat[-1].get(field) if chat else None
    if value is None:
        raise InvalidInput(f"continue_final_message is set, the last message has no {field!r} to continue")
    fields = [name for name in REASONING if chat[-1].get(name) == value] if field in REASONING else [field]
    if not any(name in template for name in fields):
        raise InvalidInput(f"continue_final_message is {field!r}, the chat template does not read it")
    if isinstance(value, str):
        chat[-1] |= dict.fromkeys(fields, value + _END)
        return value
    for part in reversed(value if isinstance(value, list | tuple) else ()):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            part["text"] = text + _END
            return text
    raise InvalidInput(f"continue_final_message is set, {field!r} of the last message holds no text to continue")


def _cut(text: str, end: str) -> str:
    """The text up to the mark."""
    if end.strip() not in text or _END.strip() not in text:
        raise InvalidInput("continue_final_message is set, the chat template leaves the end of the last message out")
    place = text.rindex(_END.strip())
    # A template that trims the message takes the mark's blank, too, and so the blanks before the mark.
    return text[:place] if text.startswith(_END, place) else text[:place].rstrip()


def _data(value: Any) -> Any:
    """A copy of the values as plain data: a template must not call an object's methods, and media are only there to be
    found."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):  # a subclass
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        return {_data(name): _data(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_data, value)) if type(value) in (list, tuple) else [*map(_data, value)]
    if isinstance(value, np.generic):
        return _data(value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):  # pydantic's models have it
        return _data(value.model_dump())
    return f"<{type(value).__name__}>"
