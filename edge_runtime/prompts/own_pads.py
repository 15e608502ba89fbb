"""A pad token that somebody typed is text: only the template says where a picture stands.

A tokenizer makes a pad of the pad's name wherever that name stands, and a family may put items at other names, such as
`<video>` (`MARKS` of edge_runtime.families). So `guarded` puts a mark into the name before the template runs, and `prompt_ids` tokenises the pieces between the marks: each piece is plain text, and no character is
lost.
"""

from collections.abc import Sequence
from typing import Any

MARK = "\ufdd0"  # Unicode reserves it: it is no character of any text


def guarded(value: Any, pads: Sequence[str]) -> tuple[Any, str]:
    """The messages or tools with a mark in each pad's name, and the mark; "" where no text names a pad.

    Args:
        value: any nesting of dictionaries, lists, tuples and texts.
        pads: the names of the pad tokens.
    """
    texts = list(_texts(value))
    if not any(pad in text for text in texts for pad in pads):
        return value, ""
    mark = MARK
    while any(mark in text for text in texts):
        mark += MARK
    return _guarded(value, pads, mark), mark


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for part in inner for text in _texts(part)]


def _guarded(value: Any, pads: Sequence[str], mark: str) -> Any:
    if isinstance(value, str):
        for pad in pads:
            value = value.replace(pad, pad[0] + mark + pad[1:])
        return value
    if isinstance(value, dict):
        return {name: _guarded(part, pads, mark) for name, part in value.items()}
    return [_guarded(part, pads, mark) for part in value] if isinstance(value, list | tuple) else value
