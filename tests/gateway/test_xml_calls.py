"""A checkpoint of Qwen3.5's layout behind the gateway: its template opens <think> and writes calls as XML elements.

A real Triton answers. A grammar fixes what the bundled model says, thought and all, so that the test knows each token.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.triton.launcher import TritonServer
from tests.gateway.gateway_process import Gateway, gateway_process

TEMPLATE = """{%- if tools %}<|im_start|>system
# Tools

You have access to the following functions:

<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>

Reply in this form: <tool_call>
<function=example_name>
<parameter=example_parameter>
value
</parameter>
</function>
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>
<function={{ call.function.name }}>
{% for name, value in call.function.arguments | items %}<parameter={{ name }}>
{{ value if value is string else value | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% if enable_thinking is false %}
</think>

{% endif %}{% endif %}"""
PARAMETERS = {"type": "object", "properties": {"where": {"type": "string"}, "far": {"type": "integer"}}}
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}]
ASKED: Any = [{"role": "user", "content": "Where is the star?"}]


def call(where: str, far: int) -> str:
    values = f"<parameter=where>\n{where}\n</parameter>\n<parameter=far>\n{far}\n</parameter>\n"
    return f"<tool_call>\n<function=look>\n{values}</function>\n</tool_call>"


THOUGHT = f"I could {call('up', 1)} or look left."
SAID = f"I look.\n{call('left', 2)}\n{call('down', 3)}"


def exactly(text: str) -> dict[str, Any]:
    """Fields that make the model say this text: the gateway leaves GBNF to the server, so it may hold the thought."""
    return {"structured_outputs": {"grammar": f"root ::= {json.dumps(text)}"}}


@pytest.fixture(scope="module")
def thinker(bundle_folder: Path, server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    bundle = tmp_path_factory.mktemp("thinker") / "bundle"
    shutil.copytree(bundle_folder, bundle)
    (bundle / "chat_template.jinja").write_text(TEMPLATE)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["chat_template.jinja"] = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with gateway_process(bundle, server.grpc_url) as gateway:
        yield gateway


def calls_of(found: list[Any]) -> list[tuple[str, Any]]:
    return [(one.function.name, json.loads(one.function.arguments)) for one in found]


EXPECTED = [("look", {"where": "left", "far": 2}), ("look", {"where": "down", "far": 3})]


def test_calls_come_from_behind_the_thought(thinker: Gateway) -> None:
    with thinker.client() as client:
        answer = client.chat.completions.create(
            model="edge_vlm", messages=ASKED, tools=TOOLS, max_tokens=500, extra_body=exactly(f"{THOUGHT}\n</think>\n\n{SAID}")
        )  # fmt: skip
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look.\n"
    assert calls_of(choice.message.tool_calls or []) == EXPECTED
    assert choice.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]


def test_calls_are_streamed_from_behind_the_thought(thinker: Gateway) -> None:
    with thinker.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="edge_vlm", messages=ASKED, tools=TOOLS, max_tokens=500, stream=True, extra_body=exactly(f"{THOUGHT}\n</think>\n\n{SAID}")
            )
        )  # fmt: skip
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == THOUGHT
    assert "".join(delta.content or "" for delta in deltas) == "I look.\n"
    found = [one for delta in deltas for one in delta.tool_calls or []]
    assert [one.index for one in found] == [0, 1]
    assert calls_of(found) == EXPECTED
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "tool_calls"


def test_a_call_that_was_only_thought_of_is_none(thinker: Gateway) -> None:
    """Neither where the model then answers, nor where it never stops to think."""
    with thinker.client() as client:
        for text, reason in ((f"{THOUGHT}\n</think>\n\nLeft.", "stop"), (THOUGHT, "stop")):
            answer = client.chat.completions.create(
                model="edge_vlm", messages=ASKED, tools=TOOLS, max_tokens=500, extra_body=exactly(text)
            )
            (choice,) = answer.choices
            assert choice.message.tool_calls is None
            assert choice.finish_reason == reason
            assert choice.message.reasoning_content == THOUGHT  # type: ignore[attr-defined]


def test_without_thinking_the_answer_begins_at_once(thinker: Gateway) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    with thinker.client() as client:
        answer = client.chat.completions.create(
            model="edge_vlm", messages=ASKED, tools=TOOLS, max_tokens=500, extra_body=off | exactly(SAID)
        )
    assert calls_of(answer.choices[0].message.tool_calls or []) == EXPECTED
    assert not hasattr(answer.choices[0].message, "reasoning_content")


def test_the_template_sees_what_the_gateway_gave(thinker: Gateway, bundle_folder: Path) -> None:
    """A turn with its reasoning and calls, sent back, is in the prompt as the model wrote it."""
    with thinker.client() as client:
        given = client.chat.completions.create(
            model="edge_vlm", messages=ASKED, tools=TOOLS, max_tokens=500, extra_body=exactly(f"{THOUGHT}\n</think>\n\n{SAID}")
        ).choices[0].message.model_dump(exclude_none=True)  # fmt: skip
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "a star"} for one in given["tool_calls"]]
    status, found, _ = thinker.ask("/tokenize", {"messages": [*ASKED, given, *results], "tools": TOOLS})
    assert status == 200, found
    prompt = Tokenizer.from_file(str(bundle_folder / "tokenizer.json")).decode(found["tokens"], False)
    assert f"<think>\n{THOUGHT}\n</think>\n\nI look.\n{call('left', 2)}{call('down', 3)}<|im_end|>" in prompt
    assert prompt.endswith("</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n")
