"""The sandbox that chat templates run in: what transformers gives them, and bounds that it does not have.

A template comes with a checkpoint, so it is a foreign program. It must mean here what it means to transformers
(`_compile_jinja_template` of transformers.utils.chat_template_utils, 5.23), and it must end: a loop that runs too long
and a text that grows too large raise `TooMuch`. Nothing interrupts a single filter or method, so the sandbox asks
edge_runtime.prompts.growth beforehand what a call makes.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import generate_lorem_ipsum

from edge_runtime.prompts.growth import num_characters, total

MAX_SECONDS = 10.0
MAX_CHARACTERS = 1 << 25
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class TooMuch(Exception):  # not a TemplateError: a template cannot cause it and go on
    """A template runs too long, or its text grows too large."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Inside the block, a template that this thread runs raises TooMuch after `seconds`."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise TooMuch where the time of the enclosing `time_limit` is over."""
    if time.monotonic() > _deadline.get():
        raise TooMuch(f"it runs longer than {MAX_SECONDS:g} s")


def check_size(num_characters: int) -> None:
    """Raise TooMuch where a text has more than MAX_CHARACTERS characters."""
    if num_characters > MAX_CHARACTERS:
        raise TooMuch(f"it makes a text of {num_characters} characters, up to {MAX_CHARACTERS} are allowed")


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for those who train; a prompt only holds what stands inside."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


class _Bounded:
    """The values of a template's loop; looks at the clock before each turn of the loop."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            check_time()
            yield value

    def __len__(self) -> int:
        return len(self._values)


class _Namespace(jinja2.utils.Namespace):
    """A namespace without private names, as transformers has it."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a template may write namespace(self=...)
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace must not hold {name!r}: names begin with a letter")


class _Dict:
    """The `dict` of templates: it makes dictionaries and has nothing else."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, whose loops look at the clock, and which measures sums, products and joined texts beforehand."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        filters = self.filters | {"tojson": _tojson}
        self.filters = {name: _checked(name, function) for name, function in filters.items()}
        self.filters |= {"_bounded": _Bounded, "_measured": _measured}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "_bounded")
        for output in tree.find_all(nodes.Concat):
            output.nodes = [_filtered(node, "_measured") for node in output.nodes]
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_time()
        texts = [value for value in (left, right) if isinstance(value, str | list | tuple)]
        if operator == "+" and len(texts) == 2:
            check_size(len(left) + len(right))
        elif operator == "*" and len(texts) == 1:
            count = right if texts[0] is left else left
            check_size(total(texts[0]) * count if isinstance(count, int) else 0)
        elif isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):  # the size counts bits
            check_size(
                left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
            )
        elif operator == "%" and isinstance(left, str):  # a width asks for as many characters
            check_size(num_characters("format", left, [right], {}))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        check_time()
        method = getattr(function, "__wrapped__", function)  # Jinja wraps format
        name, value = getattr(method, "__name__", ""), getattr(method, "__self__", None)
        if function is generate_lorem_ipsum:
            name = "lipsum"
        if name == "lipsum" or isinstance(value, str | bytes):
            if name == "join" and args:  # of a text, as the filter of a list
                args = (list(args[0]),)
                check_size(num_characters(name, args[0], [value], {}))
            else:
                check_size(num_characters(name, value, args, kwargs))
        return super().call(context, function, *args, **kwargs)


def _filtered(node: Any, name: str) -> Any:
    return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)


def _measured(value: Any) -> Any:
    if isinstance(value, str):
        check_size(2 * len(value))  # half of the limit: a text may double once
    return value


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that asks beforehand what it would make. Jinja puts what some filters want to know before the value."""
    start = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        check_time()
        value, given = args[start], args[start + 1 :]
        if name == "join" and not isinstance(value, str | Mapping):
            value = list(value)
        check_size(num_characters(name, value, given, kwargs))
        return function(*args[:start], value, *given, **kwargs)

    return run


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
def compiled(template: str) -> jinja2.Template:
    """A template, ready to render.

    Raises:
        jinja2.TemplateError: the text is no template.
    """
    return _Environment().from_string(template)


def written(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of its variables.

    Raises:
        TooMuch: the template runs longer than MAX_SECONDS, or its text grows above MAX_CHARACTERS.
        jinja2.TemplateError, TypeError, RecursionError and others: the template itself has a mistake.
    """
    pieces, size = list[str](), 0
    with time_limit(MAX_SECONDS):
        for piece in template.generate(variables):
            check_time()
            size += len(piece)
            check_size(size)
            pieces.append(piece)
    return "".join(pieces)
