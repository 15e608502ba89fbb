"""Names and kinds of the values in a body: one way to say what is wrong with each of them."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from contract.errors import shown
from edge_runtime.gateway.failures import Failure
from edge_runtime.items.options import unknown_key

NEAR = 0.8  # how alike two names are, by difflib, where one is a slip of the other


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that is almost this one; "" where there is none."""
    return next(iter(get_close_matches(name[:64], known, 1, NEAR)), "")


def check_keys(
    value: Mapping[str, Any], known: Collection[str], param: str, elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse an unknown key. A null says nothing, so it may stand under any name.

    Args:
        param: where the object stands in the body.
        elsewhere: names that are known and mean nothing here, and what to do instead.

    Raises:
        Failure: 400, with the nearest known name.
    """
    for name, item in value.items():
        if wrong := unknown_key({name: item}, known, elsewhere):
            raise Failure(400, f"{param}: {wrong}", param=f"{param}.{name[:64]}", code="unknown_parameter")


def flag(values: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """The truth value of a field; `default` where it is missing or null.

    Raises:
        Failure: 400, it is neither true nor false.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise Failure(400, f"{name} is {shown(value)}, true or false is expected", param=name)
    return default if value is None else value


def text(values: Mapping[str, Any], name: str) -> str | None:
    """The text of a field; None where it is missing or null.

    Raises:
        Failure: 400, it is no text.
    """
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise Failure(400, f"{name} is {shown(value)}, a text is expected", param=name)
    return value


def whole(values: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """The whole number of a field; None where it is missing or null.

    Raises:
        Failure: 400, it is no whole number from `low` to `high`.
    """
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Failure(400, f"{name} is {shown(value)}, a whole number from {low} to {high} is expected", param=name)
    return value


def listed(values: Mapping[str, Any], name: str) -> list[Any]:
    """The list of a field; [] where it is missing or null.

    Raises:
        Failure: 400, it is no list.
    """
    value = values.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Failure(400, f"{name} is {shown(value)}, a list is expected", param=name)
    return value


def mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object of a field; {} where it is missing or null.

    Raises:
        Failure: 400, it is no object.
    """
    value = values.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Failure(400, f"{name} is {shown(value)}, an object is expected", param=name)
    return value
