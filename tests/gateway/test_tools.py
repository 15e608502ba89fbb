"""Tools through the template and tool calls out of the text, however it is cut into pieces."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.sampling import Sampling
from edge_runtime.gateway.chat_request import ChatRequest, parse
from edge_runtime.gateway.completion import Completion, PromptTokens
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.tool_calls import ToolCallParser
from edge_runtime.prompts.chat_template import render
from edge_runtime.request import Delta

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "left"}}\n</tool_call>'
OTHER = '<tool_call>{"name": "wait"}</tool_call>'
CASES = {
    "one call": (CALL, "", [("look", {"where": "left"})]),
    "text and two calls": (f"I look.\n{CALL}\n{OTHER}", "I look.\n", [("look", {"where": "left"}), ("wait", {})]),
    "text between": (f"{CALL} and {OTHER}!", "and !", [("look", {"where": "left"}), ("wait", {})]),
    "no JSON": ("<tool_call>look</tool_call> x", "<tool_call>look</tool_call> x", []),
    "no name": ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    "no end": ('a <tool_call>{"name"', 'a <tool_call>{"name"', []),
    "nearly a mark": ("a <tool> <<tool_cal", "a <tool> <<tool_cal", []),
}


def read(pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    parser, text, calls = ToolCallParser(), "", list[dict[str, Any]]()
    for piece in pieces:
        plain, found = parser.feed(piece)
        text, calls = text + plain, calls + found
    text += parser.rest()
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert len({call["id"] for call in calls}) == len(calls)
    return text, [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


@pytest.mark.parametrize("name", CASES)
def test_calls_are_found(name: str) -> None:
    text, *expected = CASES[name]
    assert read([text]) == tuple(expected)
    assert read(list(text)) == tuple(expected)


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 150)))
def test_the_pieces_do_not_matter(name: str, cuts: list[int]) -> None:
    text, *expected = CASES[name]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert read([text[a:b] for a, b in pairwise(places)]) == tuple(expected)


def test_plain_text_is_not_held_back() -> None:
    assert ToolCallParser().feed("The star <")[0] == "The star "
    assert ToolCallParser().feed("a < b")[0] == "a < b"


def answered(is_stream: bool, reason: str = "stop") -> list[dict[str, Any]]:
    chat = ChatRequest([], Sampling(), [TOOL], is_stream)
    completion = Completion(chat, "eyes", PromptTokens(1, 2, 3))
    pieces = ["I ", "look.", CALL[:20], CALL[20:], ""]
    deltas = [Delta(piece, (7,), reason if piece == "" else "") for piece in pieces]
    chunks = [chunk for delta in deltas if (chunk := completion.add(delta))]
    return [*chunks, *completion.last()] if is_stream else [completion.whole()]


def test_a_call_ends_the_answer_with_its_own_reason() -> None:
    (whole,) = answered(is_stream=False)
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    (call,) = choice["message"]["tool_calls"]
    assert call.keys() == {"id", "type", "function"}
    assert answered(is_stream=False, reason="length")[0]["choices"][0]["finish_reason"] == "length"
    deltas = [chunk["choices"][0]["delta"] for chunk in answered(is_stream=True)]
    assert [delta.get("content") for delta in deltas] == ["I ", "look.", None, None]
    assert deltas[2]["tool_calls"][0]["function"]["name"] == "look"


TEMPLATE = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for m in messages %}{{ m.role }}:{% for c in m.tool_calls or [] %}{{ c.function.arguments.where }}{% endfor %};{% endfor %}"  # fmt: skip


def chat(**fields: Any) -> ChatRequest:
    messages = [
        {"role": "developer", "content": "x"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": '{"where": "up"}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a star"},
    ]
    return parse(json.dumps({"messages": messages} | fields).encode(), Settings())


def test_the_template_sees_tools_and_earlier_calls() -> None:
    asked = chat(tools=[TOOL])
    assert render(TEMPLATE, asked.messages, asked.tools) == json.dumps(TOOL) + "system:;assistant:up;tool:;"
    assert chat(tools=[TOOL], tool_choice="none").tools is None


def test_fields_become_sampling() -> None:
    schema = {"type": "object", "properties": {"color": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    asked = chat(
        max_tokens=5, max_completion_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop="x", presence_penalty=1,
        frequency_penalty=-1, logprobs=True, top_logprobs=4, response_format=form, top_k=9,
    )  # fmt: skip
    assert asked.sampling == Sampling(
        max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("x",), presence_penalty=1, frequency_penalty=-1,
        logprobs=4, structured_outputs={"json": schema}, top_k=9,
    )  # fmt: skip
    assert chat(response_format={"type": "json_object"}).sampling.structured_outputs == {"json": {"type": "object"}}
    assert chat(response_format={"type": "text"}, logprobs=True).sampling.logprobs == 0
    assert chat().sampling == Settings().defaults


@pytest.mark.parametrize("value", [
    {"role": "user", "content": [{"type": "text", "text": "x", "image": "/etc/passwd"}]},
    {"role": "user", "content": "x", "path": "/etc"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}, "path": "/etc/passwd"}]},
])  # fmt: skip
def test_a_key_nobody_knows_is_refused(value: dict[str, Any]) -> None:
    """So it reaches neither the template nor the pipeline."""
    with pytest.raises(Failure, match="unknown key"):
        parse(json.dumps({"messages": [value]}).encode(), Settings())
