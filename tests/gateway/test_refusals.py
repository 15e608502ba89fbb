"""What a request may not say: refused with the status and the object that OpenAI's clients read."""

import errno
import json
from typing import Any

import openai
import pytest

from edge_runtime.gateway.failures import failure_of
from tests.gateway.drawings import data_url, drawn, picture_part, user
from tests.gateway.gateway_process import Gateway

HELLO = [{"role": "user", "content": "How many shapes are there?"}]
PICTURE = picture_part(drawn(1)[0].image)
VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}

NESTED: dict[str, Any] = {"type": "object"}
for _ in range(450):
    NESTED = {"type": "array", "items": NESTED}

REFUSED: dict[str, tuple[Any, int, str | None, str]] = {
    "no JSON": (b"{", 400, None, "no JSON"),
    "nested JSON": (b"[" * 200_000, 400, None, "no JSON"),
    "no object": ([], 400, None, "JSON object"),
    "no messages": ({}, 400, "messages", "at least one message"),
    "empty messages": ({"messages": []}, 400, "messages", "at least one message"),
    "role": ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.[0].role", "role among"),
    "text that is none": (
        {"messages": [user({"type": "text", "text": 5})]},
        400,
        "messages.[0].content.[0].text",
        "is 5, a text is expected",
    ),
    "no content": ({"messages": [{"role": "user"}]}, 400, "messages.[0].content", "content is missing"),
    "part": (
        {"messages": [user({"type": "input_audio", "input_audio": {}})]},
        400,
        "messages.[0].content.[0]",
        "'input_audio'",
    ),
    "path": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "/etc/passwd"}})]},
        400,
        None,
        "that begins with",
    ),
    "part with a path": (
        {"messages": [user({"type": "image_url", "image": "/etc/passwd", "path": "/etc/passwd"})]},
        400,
        None,
        "that begins with",
    ),
    "file": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})]},
        400,
        "messages.[0].content.[0].image_url",
        "allowed-local-media-path",
    ),
    "address": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}})]},
        400,
        None,
        "the gateway fetches no",
    ),
    "no base64": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%%"}})]},
        400,
        None,
        "no base64",
    ),
    "no picture": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})]},
        400,
        None,
        "cannot be read",
    ),
    "picture cut short": (
        {"messages": [user({"type": "image_url", "image_url": {"url": data_url(drawn(1)[0].image)[: 22 + 400]}})]},
        400,
        None,
        "cut short",
    ),
    "too many pictures": ({"messages": [user(*[PICTURE] * 17)]}, 400, "messages", "17 images, 16 are allowed"),
    "too many videos": ({"messages": [user(VIDEO, VIDEO, VIDEO)]}, 400, "messages", "3 videos, 2 are allowed"),
    "model": ({"messages": HELLO, "model": "other"}, 404, "model", "model is 'other', served here are"),
    "n": ({"messages": HELLO, "n": 2}, 400, "n", "n is 2, which is not supported here: leave it out or send 1"),
    "a slip": ({"messages": HELLO, "max_token": 5}, 400, "max_token", "did you mean 'max_tokens'?"),
    "values": (b'{"messages": [' + b"1," * 600_000 + b"1]}", 400, None, "JSON values"),
    "depth": (b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", 400, None, "levels deep"),
    "role a list": ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "messages.[0].role", "role among"),
    "half a surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, None, "no JSON"),
    "base64 that is not ASCII": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,\u00e9\u00e9"}})]},
        400,
        "messages.[0].content.[0].image_url",
        "no base64",
    ),
    "fps beyond a double": (
        json.dumps({"messages": [user({**VIDEO, "fps": 10**400})]}).encode(),
        400,
        None,
        "no JSON",
    ),
    "fps": ({"messages": [user({**VIDEO, "fps": -1})]}, 400, "messages.[0].content.[0].fps", "above 0"),
    "fps of a list": (
        {"messages": [user({"type": "video", "video": [data_url(drawn(1)[0].image)], "fps": 2})]},
        400,
        "messages.[0].content.[0].fps",
        "sample_fps",
    ),
    "a schema 900 deep": (
        {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": NESTED}}},
        400,
        None,
        "levels deep",
    ),
    "zero in a URL": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "file:///tmp/%00"}})]},
        400,
        "messages.[0].content.[0].image_url",
        "NUL character",
    ),
    "max_pixels in the wrong place": (
        {"messages": [user({"type": "image_url", "image_url": {**PICTURE["image_url"], "max_pixels": 9}})]},
        400,
        "messages.[0].content.[0].image_url.max_pixels",
        "beside image_url",
    ),
    "max_pixels misspelt": (
        {"messages": [user({**PICTURE, "max_pixel": 9})]},
        400,
        "messages.[0].content.[0].max_pixel",
        "did you mean 'max_pixels'?",
    ),
    "stream option misspelt": (
        {"messages": HELLO, "stream": True, "stream_options": {"include_usages": True}},
        400,
        "stream_options.include_usages",
        "did you mean 'include_usage'?",
    ),
    "message key": ({"messages": [{"role": "user", "contents": "x"}]}, 400, "messages.[0].contents", "'content'?"),
    "tool key": (
        {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "x", "parameter": {}}}]},
        400,
        "tools.[0].function.parameter",
        "'parameters'?",
    ),
    "schema key": (
        {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schemas": {}, "schema": {}}}},
        400,
        "response_format.json_schema.schemas",
        "'schema'?",
    ),
    "more text than the context": ({"messages": [user("x" * 2_000_000)]}, 400, "messages", "characters"),
    "best_of": ({"messages": HELLO, "best_of": 2}, 400, "best_of", "not supported"),
    "guided_json": ({"messages": HELLO, "guided_json": {}}, 400, "guided_json", "not supported"),
    "repeat_penalty": (
        {"messages": HELLO, "repeat_penalty": 1.1, "repetition_penalty": 1.2},
        400,
        "repeat_penalty",
        "give one of them",
    ),
    "mm_processor_kwargs": (
        {"messages": HELLO, "mm_processor_kwargs": {"max_pixel": 1}},
        400,
        "mm_processor_kwargs.max_pixel",
        "mean",
    ),
    "reasoning_effort": ({"messages": HELLO, "reasoning_effort": "huge"}, 400, "reasoning_effort", "expected"),
    "a long value": ({"messages": HELLO, "model": "x" * 100_000}, 404, "model", "served here are"),
    "logit_bias": ({"messages": HELLO, "logit_bias": {"5": 1}}, 400, "logit_bias", "not supported"),
    "max_tokens": ({"messages": HELLO, "max_tokens": 0}, 400, "max_tokens", "from 1"),
    "more than the server gives": ({"messages": HELLO, "max_tokens": 1_000_000}, 400, "max_tokens", "is allowed"),
    "temperature": ({"messages": HELLO, "temperature": -1}, 400, "temperature", "from 0 to 100"),
    "temperature NaN": (
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        400,
        None,
        "no JSON",
    ),
    "seed": ({"messages": HELLO, "seed": "x"}, 400, "seed", "whole number"),
    "top_logprobs": ({"messages": HELLO, "top_logprobs": 2}, 400, "top_logprobs", "set logprobs to true"),
    "stream": ({"messages": HELLO, "stream": "yes"}, 400, "stream", "true or false"),
    "stream_options": ({"messages": HELLO, "stream_options": {}, "stream": 1}, 400, "stream", "true or false"),
    "usage without stream": (
        {"messages": HELLO, "stream_options": {"include_usage": True}},
        400,
        "stream_options",
        "for streams",
    ),
    "tools": ({"messages": HELLO, "tools": [{"type": "web"}]}, 400, "tools", "functions with a name"),
    "tool_choice": ({"messages": HELLO, "tool_choice": "required"}, 400, "tool_choice", "auto, none"),
    "schema": ({"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "response_format", "json_schema"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_said_what_is_wrong(gateway: Gateway, name: str) -> None:
    body, status, param, says = REFUSED[name]
    got, answer, _ = gateway.ask(body=body)
    error = answer["error"]
    assert (got, says in error["message"]) == (status, True), answer
    assert len(error["message"]) < 1100
    assert error.keys() == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


def test_the_official_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="edge_vlm", messages=HELLO, temperature=-1)  # type: ignore[arg-type]
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=HELLO)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"


def test_what_does_not_change_an_answer_is_ignored(gateway: Gateway) -> None:
    body = {"messages": HELLO, "user": "me", "store": False, "metadata": {"a": "b"}, "n": 1, "logit_bias": None}
    assert gateway.ask(body=body | {"max_tokens": 3})[0] == 200


def test_other_paths_and_methods(gateway: Gateway) -> None:
    for path, body, status in (("/v1/nothing", None, 404), ("/v1/chat/completions", None, 405), ("/health", {}, 405)):
        got, answer, _ = gateway.ask(path, body)
        assert got == status
        assert answer["error"]["message"]


def test_a_page_of_another_site_is_kept_out(gateway: Gateway) -> None:
    """A browser sends plain text to any address without asking; a name of its own may mean this machine."""
    assert gateway.ask(body={"messages": HELLO}, Content_Type="text/plain")[0] == 415
    status, answer, _ = gateway.ask("/v1/models", Host="evil.example")
    assert (status, answer["error"]["code"]) == (400, "invalid_host")
    # a second header beside ask's own, whose name it spells with capitals
    assert gateway.ask(body={"messages": HELLO}, content_type="text/plain")[0] == 415
    for name in ("localhost:80@evil.example", "[::1]evil.example", "[::1", "localhost:abc"):
        assert gateway.ask("/v1/models", Host=name)[0] == 400
    for name in ("localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.1"):
        assert gateway.ask("/v1/models", Host=name)[0] == 200
    status, _, headers = gateway.ask("/v1/models", Origin="https://evil.example")
    assert status == 200
    assert "access-control-allow-origin" not in headers


def test_after_all_that_it_answers(client: openai.OpenAI) -> None:
    scene, (question, *_) = drawn(2)
    completion = client.chat.completions.create(
        model="edge_vlm",
        messages=[user(picture_part(scene.image), question.text)],  # type: ignore[list-item]
    )
    assert completion.choices[0].message.content == question.answer


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't start new thread"), OSError(errno.EMFILE, "Too many open files"),
     BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")],
)  # fmt: skip
def test_a_machine_without_room_is_no_fault_of_a_request(error: Exception) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.retry_after_s) == (503, 1)
    assert failure_of(OSError(errno.ENOENT, "No such file")).status == 500
    assert failure_of(RuntimeError("another")).status == 500
