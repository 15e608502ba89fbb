"""What clients send beside OpenAI's own fields: accepted, ignored by name, or refused."""

import base64
import io
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest

from edge_runtime.gateway.anthropic_messages import read_anthropic
from edge_runtime.gateway.chat_request import ChatRequest, read_chat
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.settings import Settings
from serving.triton.launcher import TritonServer
from tests.gateway.drawings import data_url, drawn, picture_part, user
from tests.gateway.gateway_process import Gateway, gateway_process
from tiny_model.clips import moving_clip

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "max_tokens": 2}


def read(**fields: Any) -> ChatRequest:
    return read_chat(HELLO | fields, Settings())


def test_an_unknown_field_is_ignored_by_name(gateway: Gateway) -> None:
    for is_stream in (False, True):
        status, _, headers = gateway.ask(body=HELLO | {"zebra": 1, "b\r\nX: y": 2, "stream": is_stream})
        assert (status, headers["X-Ignored-Fields"]) == (200, "zebra, b??X??y")
    status, _, headers = gateway.ask(body=HELLO | {"zebra": 1, "": 2})  # a header must not end in a blank
    assert (status, headers["X-Ignored-Fields"]) == (200, "zebra, ?")
    assert "X-Ignored-Fields" not in gateway.ask(body=HELLO)[2]


def test_strict_refuses_it(bundle_folder: Path, server: TritonServer) -> None:
    with gateway_process(bundle_folder, server.grpc_url, "--strict") as gateway:
        status, answer, _ = gateway.ask(body=HELLO | {"zebra": 1})
        assert (status, answer["error"]["param"]) == (400, "zebra")
        assert gateway.ask(body=HELLO | {"zebra": None, "user": "me"})[0] == 200


def test_other_servers_words() -> None:
    assert read(repeat_penalty=1.3).sampling.repetition_penalty == 1.3
    assert read(seed=-1).sampling.seed is None
    assert read(max_tokens=-1).fills_context
    assert read(top_logprobs=0).sampling.logprobs is None
    assert not read(skip_special_tokens=False).sampling.skip_special_tokens
    assert read(skip_special_tokens=True, parallel_tool_calls=False).max_calls == 1
    for name in ("thinking_budget", "thinking_token_budget"):
        assert read(**{name: 12}).sampling.thinking_token_budget == 12
    assert read(thinking_token_budget=-1).sampling.thinking_token_budget is None
    with pytest.raises(Failure, match="give one of them"):
        read(thinking_budget=1, thinking_token_budget=2)
    with pytest.raises(Failure, match=r"thinking_budget is 1\.5, a whole number from 0"):
        read(thinking_budget=1.5)
    body = HELLO | {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    assert read_anthropic(body, Settings()).sampling.thinking_token_budget == 1024
    assert read(reasoning_effort="none").template == {"reasoning_effort": "none", "enable_thinking": False}
    chosen = read(reasoning_effort="high", chat_template_kwargs={"enable_thinking": False, "x": 1}).template
    assert chosen == {"reasoning_effort": "high", "enable_thinking": False, "x": 1}
    (message,) = read(messages=[{"role": "assistant", "content": None}]).messages
    assert message["content"] == ""
    (message,) = read(messages=[{"role": "assistant", "content": "x", "reasoning": "y"}]).messages
    assert message["reasoning_content"] == "y"


def test_pads_in_a_persons_text_are_text(gateway: Gateway) -> None:
    scene, _ = drawn(1)
    said = []
    for text in ("Is this it?", "Is <|image_pad|><|vision_start|><|video_pad|> it?"):
        body = HELLO | {"messages": [user(picture_part(scene.image), text)]}
        status, answer, _ = gateway.ask(body=body)
        assert status == 200, answer
        said.append(answer["usage"]["prompt_tokens_details"])
    assert [details["image_tokens"] for details in said] == [20, 20]
    assert [details["video_tokens"] for details in said] == [0, 0]
    assert said[1]["text_tokens"] > said[0]["text_tokens"]


def test_no_likeliest_tokens_beside_the_chosen_one(gateway: Gateway) -> None:
    status, answer, _ = gateway.ask(body=HELLO | {"logprobs": True, "top_logprobs": 0})
    assert status == 200, answer
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [token["top_logprobs"] for token in tokens] == [[], []]


def test_two_names_of_one_penalty_agree() -> None:
    assert read(repeat_penalty=1.3, repetition_penalty=1.3).sampling.repetition_penalty == 1.3
    with pytest.raises(Failure, match="repeat_penalty"):
        read(repeat_penalty=1.3, repetition_penalty=1.1)


def test_pixels_for_all_pictures_of_a_request() -> None:
    picture = picture_part(drawn(1)[0].image)
    asked = read(
        messages=[user(picture, {**picture, "max_pixels": 5000})], mm_processor_kwargs={"max_pixels": 9000, "fps": 1}
    )
    assert [part["max_pixels"] for part in asked.messages[0]["content"]] == [9000, 5000]
    low = {"type": "image_url", "image_url": {**picture["image_url"], "detail": "low"}}
    assert read(messages=[user(low)]).messages[0]["content"][0]["max_pixels"] == 512 * 512


def test_as_many_tokens_as_the_server_gives(gateway: Gateway) -> None:
    status, answer, _ = gateway.ask(body=HELLO | {"max_tokens": -1, "stop": [" "]})
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "stop")


@pytest.mark.parametrize("form", ["data:image/jpeg;base64,{}", "DATA:image/jpeg;charset=x;BASE64,{}"])
def test_base64_as_people_write_it(gateway: Gateway, form: str) -> None:
    scene, (question, *_) = drawn(1)
    text = data_url(scene.image, "JPEG").partition(",")[2]
    spaced = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for written in (text, text.rstrip("="), spaced):
        part = {"type": "image_url", "image_url": {"url": form.format(written)}}
        status, answer, _ = gateway.ask(body=HELLO | {"messages": [user(part, question.text)], "max_tokens": 64})
        assert (status, answer["choices"][0]["message"]["content"]) == (200, question.answer)


def test_a_camera_sends_frames(client: openai.OpenAI) -> None:
    """Both ways vLLM knows, with the same answer."""
    clip = moving_clip(Random(0), 96, 96, 3, 2)
    frames = []
    for frame in clip.frames:
        file = io.BytesIO()
        frame.save(file, "JPEG", quality=95)
        frames.append(base64.b64encode(file.getvalue()).decode())
    as_list = {"type": "video", "video": [f"data:image/jpeg;base64,{frame}" for frame in frames], "sample_fps": 2}
    as_url = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + ",".join(frames)}, "sample_fps": 2}
    said = []
    for part in (as_list, as_url):
        completion = client.chat.completions.create(
            model="edge_vlm", messages=[user(part, "What moves?")], max_tokens=20  # type: ignore[list-item]
        )  # fmt: skip
        assert completion.usage is not None
        details = completion.usage.to_dict()["prompt_tokens_details"]
        assert isinstance(details, dict)
        assert details["video_tokens"] > 0
        said.append((completion.choices[0].message.content, completion.usage.prompt_tokens))
    assert said[0] == said[1]


def test_over_tritons_http_port(bundle_folder: Path, server: TritonServer, gateway: Gateway) -> None:
    scene, (question, *_) = drawn(3)
    body = HELLO | {"messages": [user(picture_part(scene.image), question.text)], "max_tokens": 64}
    with gateway_process(bundle_folder, f"http://{server.http_url}") as other:
        assert other.ask("/ready")[0] == 200
        for is_stream in (False, True):
            status, answer, _ = other.ask(body=body | {"stream": is_stream})
            assert status == 200, answer
        status, answer, _ = other.ask(body=body)
    assert answer["choices"][0]["message"]["content"] == question.answer
