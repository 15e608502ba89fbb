"""The other endpoints that clients use by default, with the official client where it has them."""

import hashlib
import http.client
import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from edge_runtime import Pipeline, __version__
from edge_runtime.gateway.anthropic_messages import AnthropicMessage, read_anthropic
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.responses import Response
from edge_runtime.gateway.responses_request import read_response
from edge_runtime.gateway.settings import Settings
from edge_runtime.gateway.usage import PromptTokens
from edge_runtime.request import Delta
from serving.triton.launcher import TritonServer
from tests.gateway.drawings import data_url, drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process

MODEL = "edge_vlm"
SCENE, (QUESTION, *_) = drawn(2)
PICTURE = data_url(SCENE.image)
INPUT: Any = [{"role": "user", "content": [
    {"type": "input_image", "image_url": PICTURE, "detail": "auto"}, {"type": "input_text", "text": QUESTION.text},
]}]  # fmt: skip
TOOL = {"type": "function", "name": "look", "description": "x", "parameters": {"type": "object"}, "strict": False}
CALL = '<tool_call>{"name": "look", "arguments": {"where": "up"}}</tool_call>'


def events(gateway: Gateway, path: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and values of a stream of named events."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
    connection.request("POST", path, json.dumps(body | {"stream": True}), {"Content-Type": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    pairs = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_a_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=INPUT, instructions="You are brief.", max_output_tokens=64)
    assert response.output_text == QUESTION.answer
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    short = client.responses.create(model=MODEL, input="How many shapes are there?", max_output_tokens=1)
    assert (short.status, short.incomplete_details and short.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


def test_an_answer_holds_none_of_its_pictures() -> None:
    """Their text would stay in memory as long as the answer lasts, counted by nobody."""
    said = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": PICTURE}}]}]
    for asked in (
        read_response({"input": INPUT}, Settings()),
        read_anthropic({"messages": said, "max_tokens": 2}, Settings()),
    ):
        assert PICTURE[30:90] not in repr(asked.original)


def test_a_response_in_events(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=INPUT, max_output_tokens=64) as stream:
        seen = list(stream)
        final = stream.get_final_response()
    assert final.output_text == QUESTION.answer
    kinds = [event.type for event in seen]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]  # fmt: skip
    pieces = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert "".join(pieces) == QUESTION.answer
    assert len(pieces) > 1  # tokens that wait for a busy machine share a piece
    assert [event.sequence_number for event in seen] == list(range(len(seen)))


def test_a_conversation_with_calls_and_reasoning() -> None:
    items = [
        {"role": "user", "content": "Where?"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"where": "up"}'},
        {"type": "function_call_output", "call_id": "1", "output": "a star"},
    ]
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    body = {"input": items, "tools": [TOOL], "reasoning": {"effort": "low"}, "text": form, "instructions": "Be brief."}
    asked = read_response(body | {"store": True, "zebra": 1}, Settings())
    system, _, call, result = asked.messages
    assert (system["role"], system["content"]) == ("system", "Be brief.")
    assert (call["reasoning_content"], call["tool_calls"][0]["function"]["arguments"]) == ("Hm.", {"where": "up"})
    assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "1", "a star")
    assert asked.template["reasoning_effort"] == "low"
    assert asked.sampling.structured_outputs == {"json": {"type": "object"}}
    assert asked.ignored == ("zebra",)
    shape = Response(asked, "eyes", PromptTokens(1, 2, 3), True)
    for piece in ("Hm, ", "hm.</think>I look.", CALL, ""):
        shape.add(Delta(piece, (7,), "" if piece else "stop"))
    kinds = [item["type"] for item in shape.whole()["output"]]
    assert kinds == ["reasoning", "message", "function_call"]


@pytest.mark.parametrize(("body", "param"), [
    ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "x", "background": True}, "background"),
    ({"input": []}, "input"),
    ({"input": [{"role": ["user"], "content": "x"}]}, "input.[0].role"),
    ({"input": [{"type": "item_reference", "id": "1"}]}, "input.[0]"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools"),
    ({"input": "x", "max_output_token": 1}, "max_output_token"),
    ({"input": "x", "reasoning": {"efforts": "low"}}, "reasoning.efforts"),
    ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
])  # fmt: skip
def test_what_a_response_may_not_ask(body: dict[str, Any], param: str) -> None:
    with pytest.raises(Failure) as failure:
        read_response(body, Settings())
    assert (failure.value.status, failure.value.param) == (400, param)


def test_plain_completions(client: openai.OpenAI, pipeline: Pipeline) -> None:
    prompt = "<|im_start|>user\nHow many shapes are there?<|im_end|>\n<|im_start|>assistant\n"
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "How many shapes are there?"}], max_tokens=12
    )
    ids = pipeline.encoder.bundle.tokenizer.encode(prompt, add_special_tokens=False).ids
    for given in (prompt, [prompt], ids):
        whole = client.completions.create(model=MODEL, prompt=given, max_tokens=12, logprobs=2)
        assert whole.choices[0].text == chat.choices[0].message.content
        assert whole.choices[0].finish_reason == chat.choices[0].finish_reason
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == len(ids)
        logprobs = whole.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens is not None
        assert len(logprobs.tokens) == whole.usage.completion_tokens
    stream = list(client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, stream=True))
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=["a", "b"])


def test_tokens_and_facts(gateway: Gateway, client: openai.OpenAI, pipeline: Pipeline) -> None:
    tokenizer = pipeline.encoder.bundle.tokenizer
    status, answer, _ = gateway.ask("/tokenize", {"prompt": "How many?"})
    assert (status, answer["tokens"]) == (200, tokenizer.encode("How many?").ids)
    content = [{"type": "image", "image": SCENE.image}, {"type": "text", "text": "How many?"}]
    ids = pipeline.request([{"role": "user", "content": content}]).input_ids.tolist()
    status, answer, _ = gateway.ask("/tokenize", {"messages": [user(picture_part(SCENE.image), "How many?")]})
    assert (status, answer["tokens"], answer["count"]) == (200, ids, len(ids))
    model, old = client.models.list()
    assert (model.id, old.id) == (MODEL, "qwen3_vl")
    assert model.to_dict()["max_model_len"] == answer["max_model_len"] == 4096  # the context of the bundled model
    assert gateway.ask("/version")[:2] == (200, {"version": __version__})


def anthropic(**fields: Any) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION.text}]
    return {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": content}]} | fields


def test_anthropics_form(gateway: Gateway) -> None:
    status, answer, _ = gateway.ask("/v1/messages", anthropic(system="Be brief.", stop_sequences=["@"]))
    assert status == 200, answer
    assert answer["content"] == [{"type": "text", "text": QUESTION.answer}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    seen = events(gateway, "/v1/messages", anthropic())
    assert all(name == value["type"] for name, value in seen)
    kinds = [name for name, _ in seen]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(value["delta"]["text"] for name, value in seen if name == "content_block_delta")
    assert text == QUESTION.answer
    status, answer, _ = gateway.ask("/v1/messages", anthropic(max_tokens=None))
    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")


def test_anthropics_count_of_tokens(gateway: Gateway) -> None:
    """It is the prompt that the answer's usage counts."""
    asked = anthropic(system="Be brief.", tools=[{"name": "look", "input_schema": {"type": "object"}}])
    status, answer, _ = gateway.ask("/v1/messages", asked | {"max_tokens": 1})
    assert status == 200, answer
    del asked["max_tokens"]
    counted = gateway.ask("/v1/messages/count_tokens", asked)
    assert counted[:2] == (200, {"input_tokens": answer["usage"]["input_tokens"]})
    status, answer, _ = gateway.ask("/v1/messages/count_tokens", {"messages": []})
    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")


@pytest.mark.parametrize(("path", "body", "status", "kind"), [
    ("/v1/messages/batches", {}, 404, "not_found_error"), ("/v1/messages", None, 405, "invalid_request_error"),
])  # fmt: skip
def test_anthropics_form_of_errors_that_no_endpoint_answers(
    gateway: Gateway, path: str, body: Any, status: int, kind: str
) -> None:
    got, answer, _ = gateway.ask(path, body)
    assert (got, answer["type"], answer["error"]["type"]) == (status, "error", kind)


def test_anthropics_output_config() -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    form = {"type": "json_schema", "schema": schema}
    asked = read_anthropic(anthropic(output_config={"format": form, "effort": "max"}), Settings())
    assert asked.sampling.structured_outputs == {"json": schema}
    assert asked.template == {"reasoning_effort": "xhigh", "enable_thinking": True}
    for wrong, param in (
        ({"format": {"type": "regex"}}, "output_config.format.type"),
        ({"format": {"type": "json_schema", "schema": 3}}, "output_config.format.schema"),
        ({"formatt": form}, "output_config.formatt"),
    ):
        with pytest.raises(Failure) as error:
            read_anthropic(anthropic(output_config=wrong), Settings())
        assert error.value.param == param


@pytest.mark.parametrize("tools", [True, 5, 1.5, 1e30, 0, "", "x", {"a": 1}])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
def test_tools_are_a_list(gateway: Gateway, path: str, tools: object) -> None:
    body = {"/v1/messages": anthropic(), "/v1/responses": {"input": "hi"}}.get(path, {"messages": [user("hi")]})
    status, answer, _ = gateway.ask(path, body | {"tools": tools})
    assert status == 400
    assert "list" in answer["error"]["message"]


def test_anthropics_tools() -> None:
    messages = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "tool_use", "id": "1", "name": "look", "input": {"where": "up"}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "a star"}]},
    ]  # fmt: skip
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    asked = read_anthropic(
        anthropic(messages=messages, tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True}),
        Settings(),
    )
    assert [message["role"] for message in asked.messages] == ["user", "assistant", "tool"]
    assert asked.messages[1]["reasoning_content"] == "Hm."
    assert (asked.is_forced, asked.max_calls) == (True, 1)
    free = read_anthropic(anthropic(tools=tools), Settings())
    shape = AnthropicMessage(free, "eyes", PromptTokens(1, 2, 3), True)
    for piece in ("Hm.</think>I look.", CALL, ""):
        shape.add(Delta(piece, (7,), "" if piece else "stop"))
    whole = shape.whole()
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use"]
    assert (whole["content"][2]["input"], whole["stop_reason"]) == ({"where": "up"}, "tool_use")


def test_a_key_as_anthropics_clients_send_it(bundle_folder: Path, server: TritonServer) -> None:
    with gateway_process(bundle_folder, server.grpc_url, "--api-key", "secret") as gateway:
        assert gateway.ask("/v1/messages", anthropic(), x_api_key="secret")[0] == 200
        assert gateway.ask("/v1/messages", anthropic(), x_api_key="other")[0] == 401
        assert gateway.ask("/tokenize", {"prompt": "x"})[0] == 401


def test_a_template_that_opens_the_thinking(bundle_folder: Path, server: TritonServer, tmp_path: Path) -> None:
    """A real answer behind an open mark is reasoning; the template's variables reach it."""
    other = tmp_path / "bundle"
    shutil.copytree(bundle_folder, other)
    template = other / "chat_template.jinja"
    text = template.read_text()
    opened = "{% if add_generation_prompt and enable_thinking is not false %}{{ '<think>\\n' }}{% endif %}"
    template.write_text(text + opened)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["chat_template.jinja"] = hashlib.sha256(template.read_bytes()).hexdigest()
    (other / "manifest.json").write_text(json.dumps(manifest))
    body = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 8}
    with gateway_process(other, server.grpc_url) as gateway:
        status, answer, _ = gateway.ask(body=body)
        assert status == 200, answer
        message = answer["choices"][0]["message"]
        assert message["content"] == ""
        assert message["reasoning_content"] == message["reasoning"] != ""
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == answer["usage"]["completion_tokens"]
        for off in ({"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}):
            message = gateway.ask(body=body | off)[1]["choices"][0]["message"]
            assert message["content"]
            assert "reasoning" not in message
