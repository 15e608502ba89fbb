"""Chat messages to prompt text, with the checkpoint's own Jinja template in a sandbox.

The environment is the one transformers renders templates in (`_compile_jinja_template`): trimmed blocks, loop controls,
a tojson that leaves HTML alone, raise_exception and strftime_now.
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contract.errors import InvalidInput

Message = dict[str, Any]


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def render(
    template: str, messages: list[Message], tools: list[Any] | None = None, add_generation_prompt: bool = True
) -> str:
    """Prompt text with one pad token per picture or video.

    Raises:
        InvalidInput: the template refuses the messages, or they hold half of a surrogate pair, which is no text.
    """
    try:
        text = _compiled(template).render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)
    except (jinja2.TemplateError, TypeError) as error:
        raise InvalidInput(f"messages: the chat template refuses them: {error}") from error
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"messages: {text[error.start]!r} is no character") from error
    return text
