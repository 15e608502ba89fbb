"""Structured output and forced tools through the real gateway and the default engine."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.triton.launcher import TritonServer
from tests.gateway.drawings import drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.waiting import wait_for

MODEL = "edge_vlm"
SHAPES = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square", "star"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["shape", "count"],
    "additionalProperties": False,
}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": "point", "strict": True, "parameters": SHAPES}},
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {"s": {"enum": [1, 2]}}, "required": ["s"], "additionalProperties": False}}},
]  # fmt: skip


def ask(client: openai.OpenAI, **options: Any) -> openai.types.chat.chat_completion.Choice:
    scene, questions = drawn(2)
    messages = [user(picture_part(scene.image), questions[0].text)]
    completion = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=80, **options)  # type: ignore[arg-type]
    choice: openai.types.chat.chat_completion.Choice = completion.choices[0]
    return choice


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_response_format(client: openai.OpenAI, temperature: float) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "shapes", "strict": True, "schema": SHAPES}}
    choice = ask(client, response_format=form, temperature=temperature, seed=5)
    assert choice.finish_reason == "stop"
    found = json.loads(choice.message.content or "")
    assert found["shape"] in ("circle", "square", "star")
    assert 0 <= found["count"] <= 9
    assert ask(client, response_format={"type": "json_object"}).message.content[:1] == "{"  # type: ignore[index]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "wait"}}], ids=["any", "named"]
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_forced_tools(client: openai.OpenAI, choice: Any, is_stream: bool) -> None:
    scene, questions = drawn(2)
    messages: list[Any] = [user(picture_part(scene.image), questions[0].text)]
    with (
        client.chat.completions.stream(
            model=MODEL,
            messages=messages,
            tools=TOOLS,
            tool_choice=choice,
            max_tokens=80,  # type: ignore[arg-type]
        )
        if is_stream
        else _Whole(client, messages, choice) as answer
    ):
        message = answer.get_final_completion().choices[0]
    assert message.finish_reason == "tool_calls"
    (call,) = message.message.tool_calls or []
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "wait" if choice != "required" else call.function.name in ("point", "wait")
    assert arguments["s"] in (1, 2) if call.function.name == "wait" else arguments["count"] < 10


class _Whole:
    """The same question without a stream."""

    def __init__(self, client: openai.OpenAI, messages: list[Any], choice: Any) -> None:
        self._make = lambda: client.chat.completions.create(
            model=MODEL,
            messages=messages,
            tools=TOOLS,
            tool_choice=choice,
            max_tokens=80,  # type: ignore[arg-type]
        )

    def __enter__(self) -> "_Whole":
        return self

    def __exit__(self, *_: object) -> None: ...

    def get_final_completion(self) -> Any:
        return self._make()


def test_a_tool_that_leaves_its_parameters_open_gets_no_others(client: openai.OpenAI) -> None:
    """LangChain's form: without additionalProperties the bundled model writes properties until its tokens are over."""
    parameters = {"type": "object", "properties": {"s": {"enum": [1, 2]}}, "required": ["s"]}
    wait = {"type": "function", "function": {"name": "wait", "parameters": parameters}}
    choice = ask(client, tools=[wait], tool_choice={"type": "function", "function": {"name": "wait"}})
    (call,) = choice.message.tool_calls or []
    assert json.loads(call.function.arguments) in ({"s": 1}, {"s": 2})


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ({"choice": ["up", "down"]}, {"up", "down"}),
        ({"regex": "[ab]{3}"}, {a + b + c for a in "ab" for b in "ab" for c in "ab"}),
        ({"grammar": 'start: "one" | "two"'}, {"one", "two"}),
    ],
    ids=["choice", "regex", "grammar"],
)
def test_vllms_names(client: openai.OpenAI, form: dict[str, Any], texts: set[str]) -> None:
    assert ask(client, extra_body={"structured_outputs": form}).message.content in texts


def test_a_strict_tool_beside_free_text(client: openai.OpenAI) -> None:
    free = ask(client, tools=TOOLS[1:])
    assert ask(client, tools=TOOLS).message.content == free.message.content  # the model calls nothing


def test_a_schema_that_cannot_be_compiled_is_a_400_with_its_reason(gateway: Gateway, client: openai.OpenAI) -> None:
    for schema in ({"type": "colour"}, {"type": "array", "uniqueItems": True}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match="cannot be compiled"):
            ask(client, response_format=form)
    assert ask(client).finish_reason == "stop"


def test_one_client_leaves_grammars_to_another(bundle_folder: Path, server: TritonServer) -> None:
    """Each of the first client's expressions takes all the seconds that a trial may."""
    with (
        gateway_process(bundle_folder, server.grpc_url, "--api-key", "slow", "quick") as gateway,
        ThreadPoolExecutor(24) as pool,
    ):
        slow = gateway.client("slow")

        def refused(number: int) -> None:
            with suppress(openai.APIError):
                ask(slow, extra_body={"structured_outputs": {"regex": f"(a?){{5000}}a{{{number}}}"}})

        asked = [pool.submit(refused, 5200 + number) for number in range(24)]
        wait_for(lambda: gateway.counted("requests_running") >= 24)
        schema = {
            "type": "object",
            "properties": {"n": {"enum": [3]}},
            "required": ["n"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        assert json.loads(ask(gateway.client("quick"), response_format=form).message.content or "") == {"n": 3}
        assert sum(not one.done() for one in asked) >= 12
        gateway.process.kill()
