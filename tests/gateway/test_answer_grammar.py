"""The grammar of a whole answer: what llguidance, which every engine takes grammars by, lets through and what it does not."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, grammar_from

from contract.sampling import Sampling
from edge_runtime.gateway.answer_grammar import bound
from edge_runtime.gateway.tools import call_schema
from serving.grammars.constraint import Constraint

BYTES = LLTokenizer("byte")
SPOT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
NODE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"], "additionalProperties": False}},
    "$ref": "#/$defs/node",
}  # fmt: skip


def tool(name: str, parameters: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {"type": "object"}, **values}}


def obeys(sampling: Sampling, text: str) -> bool:
    """Whether the whole text is an answer that the grammar allows."""
    assert sampling.structured_outputs is not None
    constraint = Constraint.read(sampling.structured_outputs)
    if constraint.kind == "json":
        grammar = LLMatcher.grammar_from_json_schema(constraint.value)
    else:
        grammar = grammar_from(constraint.kind, constraint.value)  # type: ignore[arg-type]
    matcher = LLMatcher(BYTES, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ({"json": SPOT}, '{"x":12}', '{"y":12}'),
        ({"json_object": True}, '{"a":[1]}', "[1]"),
        ({"choice": ["yes", 'a "b"\n']}, 'a "b"\n', "no"),
        ({"regex": "a/b[0-9]"}, "a/b7", "a/b"),
        ({"regex": r"a\/b[0-9]\\"}, "a/b7\\", "a/b7"),
        ({"regex": None, "json": json.dumps(SPOT)}, '{"x":12}', '{"y":12}'),
        ({"grammar": 'start: x\nx: "up" | "down"'}, "down", "left"),
    ],
    ids=["json", "object", "choice", "regex", "escaped", "text", "grammar"],
)
def test_a_form_begins_behind_the_thoughts(form: dict[str, Any], right: str, wrong: str) -> None:
    asked = Sampling(structured_outputs=form)
    assert bound(asked, None, None, "") is asked
    assert bound(asked, None, False, "") is asked
    thinking = bound(asked, None, True, "")
    for thought in ("", f'I think {wrong} or "{right}",\nso </thin it is.\n'):
        assert obeys(thinking, f"{thought}</think>\n\n{right}")
        assert not obeys(thinking, f"{thought}</think>\n\n{wrong}")
    assert not obeys(thinking, right)


def test_a_grammar_of_another_kind_is_left_to_the_server() -> None:
    for form in ({"grammar": 'root ::= "a"'}, {"json": [1]}, {"choice": ["a"], "regex": "b"}, {}):
        asked = Sampling(structured_outputs=form)
        assert bound(asked, None, True, "") is asked


CALL = '<tool_call>\n{"name":"spot","arguments":{"x":3}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("", True),
        ("Nothing <to> do here.", True),
        (f"Look: {CALL}", True),
        (f"{CALL}\n{CALL} done", True),
        ('<tool_call>\n{"name":"wait","arguments":{"any":[1]}}\n</tool_call>', True),
        (CALL.replace("3", '"3"'), False),
        (CALL.replace("spot", "sport"), False),
        (CALL.replace("</tool_call>", ""), False),
        ("<tool_call>hello</tool_call>", False),
    ],
)
def test_a_strict_tool_has_its_form_where_it_is_called(text: str, is_right: bool) -> None:
    tools = [tool("spot", SPOT, strict=True), tool("wait")]
    assert obeys(bound(Sampling(), tools, None, ""), text) is is_right
    assert obeys(bound(Sampling(), tools, True, ""), f"I could {CALL.replace('3', 'null')}.</think>{text}") is is_right


def test_tools_that_are_not_strict_leave_the_answer_free() -> None:
    asked = Sampling()
    assert bound(asked, [tool("wait")], None, "") is asked
    assert bound(asked, [tool("spot", SPOT, strict=False)], None, "") is asked
    assert bound(asked, [tool("spot", SPOT, strict=True)], None, "<function=name>") is asked  # calls that are no JSON


def test_parameters_that_refer_to_themselves_keep_their_meaning_beside_others() -> None:
    other = {"$defs": {"node": {"const": "leaf"}}, "type": "object", "properties": {"node": {"$ref": "#/$defs/node"}}, "required": ["node"], "additionalProperties": False}  # fmt: skip
    asked = Sampling(structured_outputs={"json": call_schema([{"name": "a", "parameters": NODE}, {"name": "b", "parameters": other}])})  # fmt: skip

    def call(name: str, arguments: Any) -> str:
        return json.dumps({"name": name, "arguments": arguments}, separators=(",", ":"))

    assert obeys(asked, call("a", {"next": {"next": None}}))
    assert obeys(asked, call("b", {"node": "leaf"}))
    assert not obeys(asked, call("a", {"node": "leaf"}))
    assert not obeys(asked, call("b", {"next": None}))
