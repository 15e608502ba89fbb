"""The JSON of a request body, with bounds on how many values it holds and how deeply it nests.

A parser holds the interpreter's lock until it is done, in whatever thread it runs. So read_json first counts the marks
in the bytes, and does not parse a body that would become too many values and hold up every other answer.
"""

from typing import Any

from contract.errors import MissingExtra
from contract.nesting import nesting
from edge_runtime.gateway.failures import Failure

try:
    import orjson
except ImportError as error:
    raise MissingExtra("the gateway", "serve") from error

MAX_VALUES = 1 << 19  # room for a list of 262,144 token ids twice
MAX_OBJECTS = 1 << 14  # messages, parts, tools: the reader looks at each, 10 to 30 microseconds
MAX_DEPTH = 64  # levels of lists and objects


def json_bytes(value: Any) -> bytes:
    """A value as JSON."""
    return orjson.dumps(value)


def read_json(body: bytes | bytearray) -> Any:
    """The value of a body.

    Raises:
        Failure: 400, the body is no JSON (RFC 8259: no NaN, no half of a surrogate pair, no number beyond a double),
            holds too many values or objects, or nests too deeply.
    """
    num_values = sum(body.count(mark) for mark in (b",", b"[", b"{"))
    if num_values > MAX_VALUES:
        raise Failure(400, f"the body holds about {num_values} JSON values, up to {MAX_VALUES} are read: send fewer")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Failure(400, f"the body is no JSON: {error}") from error
    if (depth := nesting(value)) > MAX_DEPTH:
        raise Failure(400, f"the body is nested {depth} levels deep, up to {MAX_DEPTH} are read")
    if body.count(b"{") > MAX_OBJECTS and (num_objects := _num_objects(value)) > MAX_OBJECTS:  # a text may have braces
        raise Failure(400, f"the body holds {num_objects} JSON objects, up to {MAX_OBJECTS} are read: send fewer")
    return value


def _num_objects(value: Any) -> int:
    """How many objects a parsed value holds; this call counts without recursion."""
    count, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        count += sum(isinstance(item, dict) for item in level)
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return count
