"""Reads the JSON of a file into a frozen dataclass and compares each value with the annotation of its field.

An annotation may carry a `Between`, which bounds a number. The first value that does not fit raises a BundleError that
names the file, the key, the value and what the field expects. `check` converts nothing, except that a list becomes a
tuple where a field wants one.
"""

import sys
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from contract.errors import BundleError, shown

T = TypeVar("T")
AGAIN = "export it again"


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both included."""

    low: float
    high: float


Size = Annotated[int, Between(1, 1 << 31)]  # a length or a number that is never 0
Count = Annotated[int, Between(0, 1 << 31)]
TokenId = Annotated[int, Between(0, (1 << 31) - 1)]
Pixels = Annotated[int, Between(1, 1 << 53)]


def read(cls: type[T], values: Any, source: str) -> T:
    """A dataclass from a JSON object.

    Args:
        values: what the JSON parser made of it.
        source: names the object in messages, `FILE: KEY`.

    Raises:
        BundleError: `values` is no object, a key is missing or unknown, or a value does not fit its field.
    """
    if not isinstance(values, dict):
        raise BundleError(f"{source} is {shown(values)}, an object is expected: {AGAIN}")
    known = fields(cast(Any, cls))
    required = {f.name for f in known if f.default is f.default_factory is MISSING}
    if missing := required - values.keys():
        raise BundleError(f"{source} has no key {sorted(missing)[0]!r}: {AGAIN}")
    if unknown := values.keys() - {f.name for f in known}:
        raise BundleError(
            f"{source} has an unknown key {shown(sorted(unknown)[0])}: read it with the version that wrote it, or {AGAIN}"
        )
    hints = get_type_hints(cls, include_extras=True)
    checked = {name: check(hints[name], value, f"{source}: {name}") for name, value in values.items()}
    try:
        return cls(**checked)
    except BundleError as error:  # values that do not fit each other
        raise BundleError(f"{source}: {error}") from error


def check_fields(made: Any, source: str) -> None:
    """Compare a dataclass that does not come from JSON with its annotations.

    Raises:
        BundleError: a value does not fit its field.
    """
    for name, kind in get_type_hints(type(made), include_extras=True).items():
        value = getattr(made, name)
        if not is_dataclass(value):
            check(kind, value, f"{source}: {name}")


def check(kind: Any, value: Any, place: str) -> Any:
    """The value, with lists as tuples where the annotation asks for one.

    Args:
        kind: the annotation.
        place: names the value in messages.

    Raises:
        BundleError: the value does not fit the annotation.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        bounds: Between = kind.__metadata__[0]
        found = check(inner[0], value, place)
        if not bounds.low <= found <= bounds.high:
            raise BundleError(f"{place} is {shown(value)}, {bounds.low:g} to {bounds.high:g} is expected: {AGAIN}")
        return found
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return check(next(one for one in inner if one is not type(None)), value, place)
    if is_dataclass(kind):
        return read(cast(type[Any], kind), value, place)
    if origin is tuple:
        return _tuple(inner, value, place)
    if origin is list and isinstance(value, list):
        return [check(inner[0], one, f"{place}[{i}]") for i, one in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: check(inner[1], one, f"{place}: {shown(name)}") for name, one in value.items()}
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return value
    if kind in (str, int, bool) and type(value) is kind:
        return value
    noun = {"dict": "object"}.get(name := (origin or kind).__name__, name)
    raise BundleError(f"{place} is {shown(value)}, a value of type {noun} is expected: {AGAIN}")


def _tuple(inner: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    is_open = inner[-1] is Ellipsis
    if not isinstance(value, list | tuple) or not (is_open or len(value) == len(inner)):
        length = "" if is_open else f" of {len(inner)}"
        raise BundleError(f"{place} is {shown(value)}, a list{length} is expected: {AGAIN}")
    kinds = inner[:1] * len(value) if is_open else inner
    return tuple(check(kind, one, f"{place}[{i}]") for i, (kind, one) in enumerate(zip(kinds, value, strict=True)))
