"""Reads single values out of a request's tensors, as Triton hands them over."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from contract.errors import InvalidInput

Tensors = Mapping[str, NDArray[Any]]


def flag(tensors: Tensors, name: str, default: bool) -> bool:
    """The value of a BOOL tensor (1,); `default` where it is absent."""
    return bool(tensors[name].any()) if name in tensors else default


def texts(tensors: Tensors, name: str) -> list[str]:
    """The texts of a BYTES tensor; an empty list where it is absent.

    Raises:
        InvalidInput: a text is no UTF-8.
    """
    try:
        return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in tensors.get(name, ())]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is no UTF-8: {error.reason} at byte {error.start}", check="utf-8") from error


def text(tensors: Tensors, name: str) -> str | None:
    """The text of a BYTES tensor (1,); None where it is absent.

    Raises:
        InvalidInput: it is no UTF-8.
    """
    return next(iter(texts(tensors, name)), None)
