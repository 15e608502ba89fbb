"""Constraints that every engine must obey alike, each with what tells whether a text obeys it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

WORD = {"type": "string", "maxLength": 6}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "y": {"type": "boolean"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "leaf": {"type": "object", "properties": {"v": {"enum": ["a", "b"]}}, "required": ["v"]} | {"additionalProperties": False},
    },
    "type": "object",
    "properties": {"left": {"$ref": "#/$defs/leaf"}, "right": {"$ref": "#/$defs/leaf"}},
    "required": ["left", "right"],
    "additionalProperties": False,
}  # fmt: skip
SCHEMAS: dict[str, Any] = {
    "enum": {"enum": ["red", "green", 3, None]},
    "const": {"const": {"a": [1, True, None]}},
    "object": POINT,
    "nested": TREE,
    "optional": POINT | {"required": ["x"]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "items": False, "minItems": 2},
    "string": WORD,
    "pattern": {"type": "string", "pattern": "^[a-c]{2}-[0-9]$"},
    "date": {"type": "string", "format": "date"},
    "range": {"type": "integer", "minimum": -3, "maximum": 12},
    "any of": {"anyOf": [POINT, {"type": "null"}]},
    "one of": {"oneOf": [POINT, {"type": "object", "properties": {"x": {"const": "far"}}, "required": ["x"]} | {"additionalProperties": False}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 9}]},
    "left open": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]},
    "nullable": {"type": ["boolean", "null"]},
    "pydantic": {
        "$defs": {"Colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"}},
        "properties": {
            "colour": {"$ref": "#/$defs/Colour", "description": "of the shape"},
            "count": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}], "default": None, "title": "Count"},
        },
        "required": ["colour", "count"], "title": "Answer", "type": "object", "additionalProperties": False,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """structured_outputs, and whether a text obeys them."""

    constraint: dict[str, Any]
    obeys: Callable[[str], bool]


def _valid(schema: dict[str, Any]) -> Callable[[str], bool]:
    return lambda text: Draft202012Validator(schema).is_valid(json.loads(text))


def _like(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


LARK = 'start: colour " " NUMBER\ncolour: "red" | "blue"\nNUMBER: /[0-9]{2}/'
GBNF = 'root ::= word ("," word)?\nword ::= "cat" | "dog"'
CASES = {
    **{name: Case({"json": schema}, _valid(schema)) for name, schema in SCHEMAS.items()},
    "schema as text": Case({"json": json.dumps(POINT)}, _valid(POINT)),
    "regex": Case({"regex": "[0-9]{3}-[a-f]{2}"}, _like("[0-9]{3}-[a-f]{2}")),
    "choice": Case({"choice": ["cat", 'd"o\\g', "n\n", "schön 🎉"]}, ["cat", 'd"o\\g', "n\n", "schön 🎉"].__contains__),
    "lark": Case({"grammar": LARK}, _like("(red|blue) [0-9]{2}")),
    "gbnf": Case({"grammar": GBNF}, _like("(cat|dog)(,(cat|dog))?")),
}
OPEN = {"json_object": True}  # an answer of a random model does not end
WRONG: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nothing but null": {"json": None},
    "two": {"regex": "a", "choice": ["b"]},
    "unknown": {"colour": 1},
    "json object false": {"json_object": False},
    "a list": {"json": [1]},
    "no JSON": {"json": "{"},
    "no choice": {"choice": []},
    "choice of numbers": {"choice": [1]},
    "regex of a number": {"regex": 1},
    "empty grammar": {"grammar": " "},
    "nul": {"regex": "a\0"},
    "too long": {"regex": "a" * (1 << 17)},
}
NO_GRAMMAR: dict[str, dict[str, Any]] = {
    "regex": {"regex": "("},
    "look-ahead": {"regex": "(?=a)b"},
    "lark": {"grammar": "start: word"},
    "text": {"grammar": "hello"},
    "special token": {"grammar": "start: <|im_end|>"},
    "type": {"json": {"type": "colour"}},
    "keyword": {"json": {"type": "array", "uniqueItems": True}},
    "itself": {"json": {"$ref": "#"}},
    "reference": {"json": {"$ref": "#/$defs/none"}},
    "impossible": {"json": {"type": "integer", "minimum": 3, "maximum": 1}},
}
