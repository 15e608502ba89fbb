"""`structured_outputs` of a request: vLLM's names, checked here once, so that both engines mean the same by them.

An engine writes JSON without blanks and without properties that a schema does not name, and takes oneOf for anyOf, as
most servers take it: a grammar of tokens cannot count how many branches an answer fits.
"""

import json
from dataclasses import dataclass
from typing import Any

from contract.errors import InvalidInput, shown
from contract.schemas import guided

KINDS = ("json", "json_object", "regex", "choice", "grammar")
MAX_CHARACTERS = 1 << 17  # the whole constraint, written as JSON


@dataclass(frozen=True)
class Constraint:
    """One kind of KINDS but json_object, and its value: a schema, choices, or the text of a regex or grammar."""

    kind: str
    value: Any

    @classmethod
    def read(cls, given: dict[str, Any]) -> "Constraint":
        """Check the object of a request.

        Raises:
            InvalidInput: an unknown name, not exactly one constraint, or a value of another type.
        """
        if unknown := sorted(given.keys() - set(KINDS)):
            raise _wrong(f"has {shown(unknown[0])}, one of {', '.join(KINDS)} is expected")
        values = {kind: value for kind, value in given.items() if value is not None}
        if len(values) != 1:
            raise _wrong(f"has {len(values)} constraints ({', '.join(values) or 'none'}), exactly one is expected")
        ((kind, value),) = values.items()
        if kind == "json_object":
            if value is not True:
                raise _wrong(f"json_object is {shown(value)}, true is expected")
            kind, value = "json", {"type": "object"}
        if kind == "json":
            value = guided(_schema(value))
        elif kind == "choice":
            if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
                raise _wrong(f"choice is {shown(value)}, a list of texts is expected")
        elif not isinstance(value, str) or not value.strip():
            raise _wrong(f"{kind} is {shown(value)}, a text is expected")
        elif "\0" in value:
            raise _wrong(f"{kind} has a NUL character: leave it out")
        if (size := len(json.dumps(value))) > MAX_CHARACTERS:
            raise _wrong(f"{kind} has {size} characters, {MAX_CHARACTERS} are allowed")
        return cls(kind, value)

    def as_given(self) -> dict[str, Any]:
        """The object again, under vLLM's names."""
        return {self.kind: self.value}


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _wrong(f"json is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _wrong(f"json is {shown(value)}, a JSON schema is expected")
    return value


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(f"sampling_parameters.structured_outputs {text}", check="constraint")
