"""Tools through the template and tool calls out of the text, however it is cut into pieces."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.sampling import Sampling
from edge_runtime.gateway.answer_reader import AnswerReader
from edge_runtime.gateway.chat_request import ChatRequest, parse
from edge_runtime.gateway.completion import Completion
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.tool_calls import ToolCallParser
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.prompts.chat_template import render
from edge_runtime.request import Delta

PROPERTIES = {"where": {"type": "string"}, "far": {"type": "integer"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": PROPERTIES}}}
CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "left"}}\n</tool_call>'
OTHER = '<tool_call>{"name": "wait"}</tool_call>'
XML = """<tool_call>
<function=look>
<parameter=where>
left
</parameter>
<parameter=far>
2
</parameter>
</function>
</tool_call>"""
CASES = {
    "one call": (CALL, "", [("look", {"where": "left"})]),
    "text and two calls": (f"I look.\n{CALL}\n{OTHER}", "I look.\n", [("look", {"where": "left"}), ("wait", {})]),
    "text between": (f"{CALL} and {OTHER}!", "and !", [("look", {"where": "left"}), ("wait", {})]),
    "no JSON": ("<tool_call>look</tool_call> x", "<tool_call>look</tool_call> x", []),
    "no name": ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    "no end": ('a <tool_call>{"name"', 'a <tool_call>{"name"', []),
    "end mark in a string": (
        '<tool_call>{"name": "look", "arguments": {"where": "</tool_call> \\" }"}}</tool_call>',
        "",
        [("look", {"where": '</tool_call> " }'})],
    ),
    "no end mark": ('a <tool_call>\n{"name": "wait"}\n', "a ", [("wait", {})]),
    "no end mark between": (f'<tool_call>{{"name": "wait"}}\n{CALL}', "", [("wait", {}), ("look", {"where": "left"})]),
    "no end mark, then text": ('<tool_call>{"name": "wait"} and so', "and so", [("wait", {})]),
    "XML": (f"{XML}\n{XML}", "", [("look", {"where": "left", "far": 2})] * 2),
    "XML with marks in a value": (
        XML.replace("left", "a</parameter> </tool_call>\nb"),
        "",
        [("look", {"where": "a</parameter> </tool_call>\nb", "far": 2})],
    ),
    "XML without an end mark": (XML.removesuffix("</tool_call>"), "", [("look", {"where": "left", "far": 2})]),
    "XML cut short": ("<tool_call>\n<function=look>\n<para", "<tool_call>\n<function=look>\n<para", []),
    "nearly a mark": ("a <tool> <<tool_cal", "a <tool> <<tool_cal", []),
}


def read(pieces: list[str]) -> tuple[str, list[tuple[str, Any]]]:
    parser, text, calls = ToolCallParser([TOOL]), "", list[dict[str, Any]]()
    for count, piece in enumerate(pieces, 1):
        plain, found = parser.feed(piece, is_last=count == len(pieces))
        text, calls = text + plain, calls + found
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert len({call["id"] for call in calls}) == len(calls)
    return text, [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


@pytest.mark.parametrize("name", CASES)
def test_calls_are_found(name: str) -> None:
    text, *expected = CASES[name]
    assert read([text]) == tuple(expected)
    assert read(list(text)) == tuple(expected)


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 250)))
def test_the_pieces_do_not_matter(name: str, cuts: list[int]) -> None:
    text, *expected = CASES[name]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert read([text[a:b] for a, b in pairwise(places)]) == tuple(expected)


@pytest.mark.parametrize(
    "inner",
    [
        "<parameter=a>" * 10_000,  # it took a minute
        "<parameter=a>" + "</parameter>  x" * 10_000,
        "<parameter=" * 20_000,
        "</function> x" * 10_000,
        "</function>" + " " * 200_000 + "x",
    ],
)
def test_hostile_calls_are_read_once(inner: str) -> None:
    text = "<tool_call><function=look>" + inner + "</function></tool_call>"
    begun = time.monotonic()
    read([text])
    read([text[at : at + 100] for at in range(0, len(text), 100)])
    assert time.monotonic() - begun < 10  # 0.1 s on a quiet machine


def test_plain_text_is_not_held_back() -> None:
    assert ToolCallParser().feed("The star <")[0] == "The star "
    assert ToolCallParser().feed("a < b")[0] == "a < b"


def test_one_call_where_one_is_wanted() -> None:
    parser = ToolCallParser([TOOL], max_calls=1)
    assert [len(parser.feed(piece)[1]) for piece in (CALL, OTHER)] == [1, 0]


THOUGHTS = {  # said, whether the prompt ends with the opening mark, reasoning, answer
    "by the model": ("<think>\nA star.\n</think>\n\nOne.", False, "A star.", "One."),
    "by the template": ("A star.\n</think>\n\nOne.", True, "A star.", "One."),
    "none": ("One </think> two.", False, "", "One </think> two."),
    "empty": ("<think>\n\n</think>\n\nOne.", False, "", "One."),
    "cut short": ("A star <", True, "A star <", ""),
    "a mark later": ("One. <think>", False, "", "One. <think>"),
    "a call that was thought of": (f"I could {CALL} or not.</think>No.", True, f"I could {CALL} or not.", "No."),
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_reasoning_is_told_apart(name: str) -> None:
    said, is_open, *expected = THOUGHTS[name]
    for pieces in ([said], list(said), [said[:9], said[9:]]):
        reader = AnswerReader(ChatRequest([], Sampling(), [TOOL]), is_open)
        read = [
            reader.add(Delta(piece, (7,), "stop" if count == len(pieces) else ""))
            for count, piece in enumerate(pieces, 1)
        ]
        assert ["".join(piece.reasoning for piece in read), "".join(piece.text for piece in read)] == expected
        assert not any(piece.calls for piece in read)
        assert reader.reason == "stop"


def test_reasoning_is_streamed_and_counted() -> None:
    completion = Completion(ChatRequest([], Sampling(), None, True, True), "eyes", PromptTokens(1, 2, 3), True)
    pieces = ["A ", "star.", "</think>", "One."]
    chunks = [chunk for piece in pieces for chunk in completion.add(Delta(piece, (7,), "stop" * (piece == "One.")))]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "A star."
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)
    assert "".join(delta.get("content", "") for delta in deltas) == "One."
    assert completion.usage()["completion_tokens_details"] == {"reasoning_tokens": 3}
    completion = Completion(ChatRequest([], Sampling()), "eyes", PromptTokens(1, 2, 3), True)
    completion.add(Delta("A star.</think>One.", (7,), "stop"))
    message = completion.whole()["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"], message["content"]) == ("A star.", "A star.", "One.")


def test_a_forced_call_is_bare_json() -> None:
    asked = chat(tools=[TOOL], tool_choice="required")
    assert asked.is_forced
    assert asked.sampling.structured_outputs is not None
    assert asked.sampling.structured_outputs["json"]["properties"]["name"] == {"const": "look"}
    both = chat(tools=[TOOL, {"type": "function", "function": {"name": "wait"}}], tool_choice="required")
    assert both.sampling.structured_outputs is not None
    assert len(both.sampling.structured_outputs["json"]["anyOf"]) == 2
    completion = Completion(asked, "eyes", PromptTokens(1, 2, 3), True)
    for piece in ("Up, I think.</think>\n", '{"name": "look", ', '"arguments": {"where": "up"}}'):
        completion.add(Delta(piece, (7,), "stop" if piece.endswith("}}") else ""))
    choice = completion.whole()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["reasoning"] == "Up, I think."
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"where": "up"}


def answered(is_stream: bool, reason: str = "stop") -> list[dict[str, Any]]:
    chat = ChatRequest([], Sampling(), [TOOL], is_stream)
    completion = Completion(chat, "eyes", PromptTokens(1, 2, 3))
    pieces = ["I ", "look.", CALL[:20], CALL[20:], ""]
    deltas = [Delta(piece, (7,), reason if piece == "" else "") for piece in pieces]
    chunks = [chunk for delta in deltas for chunk in completion.add(delta)]
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


def test_an_answer_has_one_form() -> None:
    form = {"choice": ["yes", "no"]}
    with pytest.raises(Failure, match=r"response_format and structured_outputs were both sent.*send one"):
        chat(response_format={"type": "json_object"}, structured_outputs=form)
    assert chat(response_format={"type": "text"}, structured_outputs=form).sampling.structured_outputs == form


@pytest.mark.parametrize("value", [
    {"role": "user", "content": [{"type": "text", "text": "x", "image": "/etc/passwd"}]},
    {"role": "user", "content": "x", "path": "/etc"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}, "path": "/etc/passwd"}]},
])  # fmt: skip
def test_a_key_nobody_knows_is_refused(value: dict[str, Any]) -> None:
    """So it reaches neither the template nor the pipeline."""
    with pytest.raises(Failure, match="is unknown"):
        parse(json.dumps({"messages": [value]}).encode(), Settings())
