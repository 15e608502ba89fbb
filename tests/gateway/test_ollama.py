"""Ollama's form of a chat; tests/clients has its official client."""

import http.client
import json
from typing import Any

import pytest

from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.ollama import OllamaAnswer, read_ollama
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta
from tests.gateway.drawings import data_url, drawn
from tests.gateway.gateway_process import Gateway

SCENE, (QUESTION, *_) = drawn(5)
PICTURE = data_url(SCENE.image).partition(",")[2]
SHOWN = {"role": "user", "content": QUESTION.text, "images": [PICTURE]}
SHAPES = {"type": "object", "properties": {"count": {"enum": [1, 2]}}, "required": ["count"]}
TOOL = {"type": "function", "function": {"name": "look", "description": "x", "parameters": SHAPES}}
CALL = '<tool_call>{"name": "look", "arguments": {"count": 1}}</tool_call>'


def read(**fields: Any) -> Any:
    return read_ollama({"messages": [SHOWN]} | fields, Settings())


def chat(gateway: Gateway, message: Any = SHOWN, **fields: Any) -> Any:
    status, answer, _ = gateway.ask("/api/chat", {"model": "edge_vlm", "messages": [message], "stream": False} | fields)
    assert status == 200, answer
    return answer


def test_whole_answers(gateway: Gateway) -> None:
    assert [model["name"] for model in gateway.ask("/api/tags")[1]["models"]] == ["edge_vlm", "qwen3_vl"]
    assert gateway.ask("/api/version")[0] == 200
    whole = chat(gateway, model="edge_vlm:latest", options={"num_predict": 64, "num_ctx": 2048})
    assert whole["message"] == {"role": "assistant", "content": QUESTION.answer}
    assert (whole["done"], whole["done_reason"], whole["model"]) == (True, "stop", "edge_vlm:latest")
    assert min(whole["prompt_eval_count"], whole["eval_count"], whole["total_duration"]) > 0
    short = chat(gateway, options={"num_predict": 1})
    assert (short["done_reason"], short["eval_count"]) == ("length", 1)
    formed = chat(gateway, format=SHAPES)["message"]["content"]
    assert json.loads(formed) in ({"count": 1}, {"count": 2})


def test_it_streams_lines_where_nothing_is_said(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
    body = json.dumps({"messages": [SHOWN], "logprobs": True, "top_logprobs": 1})
    connection.request("POST", "/api/chat", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.read().splitlines()]
    connection.close()
    assert "".join(line["message"]["content"] for line in lines) == QUESTION.answer
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert sum(len(line.get("logprobs", [])) for line in lines) == lines[-1]["eval_count"] > 5


def test_errors_are_ollamas(gateway: Gateway) -> None:
    for fields, expected, says in (
        ({"model": "llama"}, 404, "served here are"),
        ({"messages": [SHOWN | {"images": ["AAAA"]}]}, 400, "picture"),
    ):
        status, answer, _ = gateway.ask("/api/chat", {"messages": [SHOWN]} | fields)
        assert status == expected
        assert says in answer["error"]
    assert gateway.ask("/api/show", {"model": "x"})[:2] == (404, {"error": "Not Found"})


def test_fields() -> None:
    asked = read(
        options={"temperature": 0.5, "repeat_penalty": 1.1, "seed": 3, "num_predict": 5, "stop": ["x"], "num_gpu": 1},
        think=False, keep_alive="5m", zebra=1,
    )  # fmt: skip
    sampling = asked.sampling
    assert (sampling.temperature, sampling.repetition_penalty, sampling.seed) == (0.5, 1.1, 3)
    assert (sampling.max_tokens, sampling.stop) == (5, ("x",))
    assert asked.template == {"enable_thinking": False}
    assert asked.ignored == ("zebra",)
    assert asked.is_stream
    assert [part["type"] for part in asked.messages[0]["content"]] == ["image", "text"]
    assert read(options={"num_predict": -1}).fills_context
    assert read(think="high").template["reasoning_effort"] == "high"
    assert read(format="json").sampling.structured_outputs == {"json": {"type": "object"}}
    call = {"function": {"index": 0, "name": "look", "arguments": {"count": 2}}}
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "look", "content": "2"},
    ]
    said = read(messages=[SHOWN, *turns]).messages
    assert said[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"count": 2}}
    assert said[2]["name"] == "look"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"options": {"temprature": 1}}, "options.temprature"),
        ({"options": {"mirostat": 2}}, "options.mirostat"),
        ({"options": {"num_predict": 0}}, "max_tokens"),
        ({"messages": [SHOWN | {"images": "x"}]}, "messages.[0].images"),
        ({"messages": [SHOWN | {"image": []}]}, "messages.[0].image"),
        ({"messages": []}, "messages"),
        ({"think": 1}, "think"),
        ({"format": "xml"}, "response_format"),
        ({"steam": False}, "steam"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Failure) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_calls_and_thoughts_have_their_own_places() -> None:
    chat = read(tools=[TOOL])
    answer = OllamaAnswer(chat, "edge_vlm", PromptTokens(3, 0, 0), is_thinking=True)
    text = f"I see.</think>\n\nLook:{CALL}"
    lines = [line for piece in text for line in answer.add(Delta(piece, (1,)))]
    lines += [*answer.add(Delta("", (2,), "stop")), *answer.last()]
    messages = [line["message"] for line in lines]
    assert "".join(message.get("thinking", "") for message in messages).strip() == "I see."
    assert "".join(message["content"] for message in messages).strip() == "Look:"
    (call,) = [call for message in messages for call in message.get("tool_calls", [])]
    assert call == {"function": {"name": "look", "arguments": {"count": 1}}}
    assert lines[-1]["done_reason"] == "stop"
