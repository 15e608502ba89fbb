"""JSON schemas of structured outputs, as every engine gets them."""

from typing import Any

# llguidance's names: no blanks, which a weak model writes for ever; oneOf means anyOf.
JSON_OPTIONS = {"whitespace_flexible": False, "coerce_one_of": True}
NAMED = ("properties", "$defs", "definitions")  # keywords whose values are objects of schemas
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # lists of schemas
SINGLE = ("items", "additionalProperties", "contains")  # one schema
COMBINED = ("if", "not", "dependentSchemas")
SAYS_WHICH = ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames")


def guided(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with our options, and with its objects closed."""
    return _closed(schema) | {"x-guidance": JSON_OPTIONS}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, where an object that names its properties has no others, unless it says so.

    JSON schemas allow any; vLLM's xgrammar and OpenAI's strict schemas allow none, clients count on it, and a weak model
    adds properties for ever. A schema that combines several for one object stays as it is: each would forbid what the
    others ask for. The walk has no recursion, since a client chooses how deep its schema is.
    """
    whole = dict(schema)
    todo = [whole]
    for one in todo:  # grows meanwhile
        parts = [key for key in ("allOf", "anyOf", "oneOf", "$ref") if key in one]
        several = isinstance(one.get("allOf"), list) and len(one["allOf"]) > 1
        if several or len(parts) > 1 or (parts and "properties" in one) or any(key in one for key in COMBINED):
            return schema
        for key in NAMED:
            if isinstance(held := one.get(key), dict):
                one[key] = {name: dict(value) if isinstance(value, dict) else value for name, value in held.items()}
                todo += [value for value in one[key].values() if isinstance(value, dict)]
        for key in LISTED:
            if isinstance(held := one.get(key), list):
                one[key] = [dict(value) if isinstance(value, dict) else value for value in held]
                todo += [value for value in one[key] if isinstance(value, dict)]
        for key in SINGLE:
            if isinstance(held := one.get(key), dict):
                one[key] = dict(held)
                todo.append(one[key])
        if isinstance(one.get("properties"), dict) and not any(key in one for key in SAYS_WHICH):
            one["additionalProperties"] = False
    return whole
