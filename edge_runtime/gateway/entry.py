"""One thing to embed or to rank, as clients write it: text, token ids, an object with a picture, parts, or messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from contract.errors import shown
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys
from edge_runtime.gateway.messages import check_counts, num_characters, read_part
from edge_runtime.gateway.settings import Settings
from edge_runtime.prompts.chat_template import Message

KINDS = ("video", "image", "text")  # of an object, in the order in which the model reads them
MAX_ENTRIES = 2048  # OpenAI's


@dataclass(frozen=True)
class Entry:
    """What one vector or score is about.

    Attributes:
        param: where it stands in the body.
        parts: content parts, with a Link in the place of every source; empty where the entry is ids or messages.
        ids: token ids, which no template changes.
        messages: a whole conversation.
    """

    param: str
    parts: list[dict[str, Any]] = field(default_factory=list)
    ids: tuple[int, ...] = ()
    messages: list[Message] = field(default_factory=list)

    @property
    def num_characters(self) -> int:
        return num_characters([*self.messages, {"role": "user", "content": self.parts}])

    def copied_parts(self) -> list[dict[str, Any]]:
        """The parts as new objects: whoever reads the sources writes them into their parts."""
        return [dict(part) for part in self.parts]


def read_entries(value: Any, param: str, settings: Settings) -> tuple[Entry, ...]:
    """The entries of a field that holds one or a list of them.

    Raises:
        Failure: 400; it names the entry.
    """
    is_one = not isinstance(value, list) or (bool(value) and all(type(token) is int for token in value))
    values = [value] if is_one else value
    if not 0 < len(values) <= MAX_ENTRIES:
        raise Failure(400, f"{param} has {len(values)} entries, 1 to {MAX_ENTRIES} are expected", param=param)
    places = [param] if is_one else [f"{param}.[{index}]" for index in range(len(values))]
    return tuple(read_entry(one, place, settings) for one, place in zip(values, places, strict=True))


def read_entry(value: Any, param: str, settings: Settings) -> Entry:
    """One entry: a text, a list of token ids, `{"text": …, "image": …, "video": …}` or `{"content": [parts]}`.

    Raises:
        Failure: 400; it says what is wrong.
    """
    if isinstance(value, str) and value:
        return Entry(param, [{"type": "text", "text": value}])
    if isinstance(value, list) and value and all(type(token) is int and 0 <= token < 1 << 31 for token in value):
        return Entry(param, ids=tuple(value))
    if not isinstance(value, dict) or not value:
        raise Failure(
            400, f"{param} is {shown(value)}, a text, token ids, or an object with text, image or video is expected",
            param=param,
        )  # fmt: skip
    if isinstance(content := value.get("content"), list) and content:
        check_keys(value, ("content",), param)
        parts = [read_part(part, f"{param}.content.[{index}]", {}) for index, part in enumerate(content)]
    else:
        check_keys(value, KINDS, param)
        given: Iterable[str] = (kind for kind in KINDS if value.get(kind) is not None)
        parts = [read_part({"type": kind, kind: value[kind]}, param, {}) for kind in given]
    if not parts:
        raise Failure(400, f"{param} is empty: give it text, image or video", param=param)
    check_counts([{"role": "user", "content": parts}], settings, param)
    return Entry(param, parts)
