"""How large a text or list one filter or method of a template makes, known before it runs: nothing interrupts it then.

Only those stand here that make more than they are given: by a width, by a number of pieces, or by a text that they put
in many times.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LIST_CHARACTERS = 32  # a list takes the memory of so many
PARAGRAPH_CHARACTERS = 1200  # of lipsum: a hundred words
_DIGITS = re.compile(r"[0-9]+")


def num_characters(name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """The most characters of what a call makes, about; 0 for a name that makes no more than it is given.

    Args:
        name: the filter's or the method's name.
        value: what the filter gets, or the method's object; for `join` the list in both cases.
    """
    given = [*args, *kwargs.values()]
    numbers = [abs(one) for one in given if isinstance(one, int)]
    number, length = max(numbers, default=0), len(value) if isinstance(value, str | bytes) else 0
    longest = max(map(_length, given), default=0)
    match name:
        case "center" | "ljust" | "rjust" | "zfill":
            return number + length
        case "slice" | "batch":
            return number * LIST_CHARACTERS
        case "lipsum":
            return math.prod(numbers) * PARAGRAPH_CHARACTERS
        case "tojson":  # the width of a level stands before every value
            return number * len(str(value)) if number else 0
        case "indent":
            return (str(value).count("\n") + 1) * max(number, longest) + length
        case "expandtabs":
            return int(value.count("\t" if isinstance(value, str) else b"\t")) * (number or 8) + length
        case "wordwrap":
            return length * (1 + longest)
        case "replace":
            return _replaced(value, [*args, *(kwargs[key] for key in ("old", "new", "s") if key in kwargs)])
        case "translate":
            table = given[0] if given and isinstance(given[0], Mapping) else {}
            return length * max(map(_length, table.values()), default=1)
        case "format" | "format_map":
            return _formatted(str(value), given)
        case "join":
            return total(value) + len(value) * longest if isinstance(value, list | tuple | str) else 0
    return 0


def total(value: Any) -> int:
    """The characters of all texts in lists in lists, and one for each other value."""
    return sum(map(total, value)) + len(value) if isinstance(value, list | tuple) else max(1, _length(value))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 0


def _replaced(value: Any, given: Sequence[Any]) -> int:
    text = value if isinstance(value, str | bytes) else str(value)
    if len(given) < 2 or not all(isinstance(one, type(text)) for one in given[:2]):
        return 0  # it fails by itself
    return int(text.count(given[0])) * len(given[1]) + len(text)


def _formatted(text: str, given: Sequence[Any]) -> int:
    """Widths stand in the text, or are numbers among the values; each field may hold the longest value."""
    values = [one for each in given for one in _inside(each)]
    widths = sum(map(int, _DIGITS.findall(text))) + max((abs(v) for v in values if isinstance(v, int)), default=0)
    fields = text.count("{") + text.count("%")
    return len(text) + widths + fields * max((_length(one) for one in values), default=0)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)
