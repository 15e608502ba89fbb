"""Schemas of structured outputs: objects are closed where nothing else is said, and nothing becomes impossible."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from contract.schemas import JSON_OPTIONS, guided

OPEN: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
WRAPPED = {
    "itself": (OPEN, {"x": 1}, {"x": 1, "y": 2}),
    "property": ({"properties": {"o": OPEN}}, {"o": {"x": 1}}, {"o": {"x": 1, "y": 2}}),
    "definition": ({"$ref": "#/$defs/o", "$defs": {"o": OPEN}}, {"x": 1}, {"x": 1, "y": 2}),
    "array": ({"type": "array", "items": OPEN}, [{"x": 1}], [{"x": 1, "y": 2}]),
    "tuple": ({"type": "array", "prefixItems": [OPEN]}, [{"x": 1}], [{"x": 1, "y": 2}]),
    "branch": ({"anyOf": [OPEN, {"type": "null"}]}, {"x": 1}, {"x": 1, "y": 2}),
    "values": ({"type": "object", "additionalProperties": OPEN}, {"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}),
}
SAID: dict[str, Any] = {
    "any": {"type": "object"},
    "others": OPEN | {"additionalProperties": {"type": "string"}},
    "open": OPEN | {"additionalProperties": True},
    "two for one object": {"allOf": [OPEN, {"properties": {"y": {"type": "integer"}}, "required": ["y"]}]},
    "branches of an object": OPEN | {"anyOf": [{"required": ["x"]}, {"properties": {"z": {"type": "null"}}}]},
    "a condition": OPEN | {"if": {"properties": {"x": {"const": 1}}}, "then": {"required": ["y"]}},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_an_object_has_the_properties_it_names(name: str) -> None:
    schema, right, wrong = WRAPPED[name]
    assert Draft202012Validator(schema).is_valid(wrong)
    before = repr(schema)
    made = guided(schema)
    assert repr(schema) == before
    assert made["x-guidance"] == JSON_OPTIONS
    assert Draft202012Validator(made).is_valid(right)
    assert not Draft202012Validator(made).is_valid(wrong)


@pytest.mark.parametrize("name", SAID)
def test_what_a_schema_says_stays(name: str) -> None:
    assert guided(SAID[name]) == SAID[name] | {"x-guidance": JSON_OPTIONS}


def test_a_deep_schema_needs_no_stack() -> None:
    schema: dict[str, Any] = {"properties": {}}
    for _ in range(5_000):
        schema = {"items": schema}
    made = guided(schema)
    for _ in range(5_000):
        made, inner = made["items"], made
        inner.clear()  # or freeing the nest would be deep
    assert made["additionalProperties"] is False
