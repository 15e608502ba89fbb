"""The options beside a picture or video in a message: this module checks their names and their numbers.

A message with a misspelt limit must not pass, so this module ignores no unknown name.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, TypeVar

from contract.errors import MediaError, shown

Options = TypeVar("Options")
LEAST, MOST = 1e-9, 1e20  # of an option: products and quotients with a video's own numbers stay finite


def check_numbers(options: Any, whole: Collection[str], from_zero: Collection[str] = ()) -> None:
    """Check every field of a dataclass of options; a field that is None says nothing.

    Args:
        options: an object with fields resized_height and resized_width.
        whole: names of the fields that hold whole numbers.
        from_zero: names of the fields that may be 0; all others must be above 0.

    Raises:
        MediaError: a value is no such number or beyond MOST or LEAST, or one of resized_height and resized_width is missing.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        if value is None:
            continue
        kinds, low = (int,) if field.name in whole else (int, float), field.name in from_zero
        right = isinstance(value, kinds) and not isinstance(value, bool) and (value >= 0 if low else value > 0)
        noun = "whole number" if field.name in whole else "number"
        if not right or (isinstance(value, float) and not math.isfinite(value)):
            raise MediaError(f"{field.name} is {shown(value)}, a {noun} {'from' if low else 'above'} 0 is expected")
        if value > MOST or 0 < value < LEAST:
            raise MediaError(
                f"{field.name} is {shown(value)}, a {noun} from {0 if low else 1 if field.name in whole else LEAST:g} to {MOST:g} is expected"
            )
    if (options.resized_height is None) != (options.resized_width is None):
        raise MediaError(
            f"resized_height is {options.resized_height} and resized_width is {options.resized_width}: give both or none"
        )


def names(kind: type[Any]) -> tuple[str, ...]:
    """The names of the options of a kind."""
    return tuple(field.name for field in fields(kind))


def options_of(kind: type[Options], part: Mapping[str, Any]) -> Options:
    """The options among the keys of a content part."""
    return kind(**{name: part[name] for name in names(kind) if name in part})


def unknown_key(value: Mapping[str, Any], known: Collection[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """What is wrong with the first unknown key; "" where all keys are known. A null says nothing under any name.

    Args:
        value: the object whose keys are checked.
        known: the names that may stand in it.
        elsewhere: names that mean something in another place only, and what to do instead.
    """
    for name, item in value.items():
        if name in known or item is None:
            continue
        if elsewhere and name in elsewhere:
            return f"{name} has no meaning here: {elsewhere[name]}"
        near = get_close_matches(str(name)[:64], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
        return f"the key {shown(name)} is unknown, {hint}"
    return ""
