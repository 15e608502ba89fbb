"""The grammar of a whole answer: thoughts before the part that must have a form, and strict tools between free text.

A request says which form the answer has. A template that ends in <think> makes the model think first, and a strict tool
has a form only where the model calls it. This module turns both into one Lark grammar, which every engine takes.
"""

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from contract.sampling import Sampling
from contract.schemas import guided
from contract.thinking import END as THOUGHT_END
from edge_runtime.gateway.tool_calls import END, FUNCTION, START
from edge_runtime.gateway.tools import call_schema

ANYTHING = r"/(?s:.*)/"
THOUGHT = f"thought[suffix={json.dumps(THOUGHT_END)}]: {ANYTHING}\n"
BLANK = r"blank: /\s*/" + "\n"


def bound(sampling: Sampling, tools: list[Any] | None, is_thinking: bool | None, template: str) -> Sampling:
    """The sampling parameters, with the grammar that thoughts and strict tools need.

    Args:
        sampling: what the client asks for.
        tools: functions that the model may call.
        is_thinking: whether the prompt ends with an open mark of reasoning; None where the checkpoint knows none.
        template: the checkpoint's chat template; strict tools have a grammar where it writes calls as JSON.
    """
    form = sampling.structured_outputs
    if form is None:
        strict = [tool["function"] for tool in tools or [] if tool["function"].get("strict")]
        if not strict or FUNCTION in template:
            return sampling
        grammar = _calls([tool["function"] for tool in tools or []])
        if is_thinking:  # a call in a thought does not count
            grammar = f"start: thought answers\n{THOUGHT}answers{grammar.removeprefix('start')}"
        return replace(sampling, structured_outputs={"grammar": grammar})
    rules = _rules(form) if is_thinking else None
    if rules is None:
        return sampling
    return replace(
        sampling, structured_outputs={"grammar": f"start: thought blank answer\n{THOUGHT}{BLANK}answer: {rules}\n"}
    )


def _rules(form: dict[str, Any]) -> str | None:
    """The right side of a rule; None where the server judges the form, and for GBNF, which no Lark rule can hold."""
    given = {kind: value for kind, value in form.items() if value is not None}
    if len(given) != 1:
        return None
    ((kind, value),) = given.items()
    if kind == "json" and isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if kind == "json_object":
        kind, value = "json", {"type": "object"}
    if kind == "json" and isinstance(value, dict):
        return _json(value)
    if kind == "choice" and isinstance(value, list):
        return " | ".join(json.dumps(text) for text in value)
    if kind == "regex" and isinstance(value, str):
        escaped = re.sub(r"\\.|/", lambda found: r"\/" if found[0] == "/" else found[0], value, flags=re.DOTALL)
        return "/(?:" + escaped.replace("\n", r"\n") + ")/"
    if kind == "grammar" and isinstance(value, str) and "::=" not in value:
        return "%lark {\n" + value + "\n}"
    return None


def _calls(functions: list[dict[str, Any]]) -> str:
    """Free text with calls in it; a strict function's arguments fit its schema, another's are any object."""
    schema = call_schema([one if one.get("strict") else {"name": one["name"]} for one in functions])
    return (
        f"start: call* TEXT\nTEXT: {ANYTHING}\nbegun[lazy]: TEXT {json.dumps(START)}\n"
        f"call: begun blank {_json(schema)} blank {json.dumps(END)}\n{BLANK}"
    )


def _json(schema: dict[str, Any]) -> str:
    return "%json " + json.dumps(guided(schema))
