"""The official openai client against a real gateway in front of a real Triton."""

from pathlib import Path
from random import Random

import openai

from edge_runtime import GrpcClient, Pipeline, Sampling
from serving.triton.launcher import TritonServer
from tests.gateway.drawings import data_url, drawn, moving, picture_part, user, video_part
from tiny_model.scenes import shapes_scene, text_scene

MODEL = "edge_vlm"


def ask(client: openai.OpenAI, *messages: object, **options: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model=MODEL, messages=list(messages), **options)  # type: ignore[call-overload, no-any-return]


def text_of(completion: openai.types.chat.ChatCompletion) -> str:
    assert completion.choices[0].message.content is not None
    return completion.choices[0].message.content


def test_answers_about_drawn_pictures_are_right(client: openai.OpenAI) -> None:
    right = asked = 0
    for seed in range(6):
        scene, questions = drawn(seed)
        for question in questions:
            right += text_of(ask(client, user(picture_part(scene.image), question.text))) == question.answer
            asked += 1
    assert right >= 0.9 * asked > 20


def test_the_plain_request(client: openai.OpenAI) -> None:
    """A JPEG in base64 and max_tokens, as test scripts send it."""
    scene = shapes_scene(Random(5), 160, 128, 3)
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_url(scene.image, "JPEG")}},
                    {"type": "text", "text": "How many shapes are there?"},
                ],
            }
        ],
        max_tokens=64,
    )
    number = ("zero", "one", "two", "three", "four")[len(scene.shapes)]
    assert completion.choices[0].message.content is not None
    assert f" {number} shape" in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.object == "chat.completion"
    assert completion.model == MODEL


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    scene, _ = drawn(3)
    messages = [user(picture_part(scene.image), "Describe the image.")]
    whole = ask(client, *messages)
    stream = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    chunks = list(stream)
    *pieces, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == text_of(whole)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert sum(bool(chunk.choices[0].delta.content) for chunk in pieces) > 1  # tokens that wait share a piece
    assert [chunk.choices[0].finish_reason for chunk in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_counts_text_and_pictures(client: openai.OpenAI, pipeline: Pipeline) -> None:
    scene, _ = drawn(4)
    completion = ask(client, user(picture_part(scene.image), "Describe the image."))
    content = [{"type": "image", "image": scene.image}, {"type": "text", "text": "Describe the image."}]
    request = pipeline.request([{"role": "user", "content": content}])
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens == len(request.input_ids)
    details = usage.to_dict()["prompt_tokens_details"]
    assert isinstance(details, dict)
    assert details["image_tokens"] == len(request.main)
    assert details["text_tokens"] == len(request.input_ids) - len(request.main)
    assert details["video_tokens"] == 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    ids = pipeline.encoder.bundle.tokenizer.encode(text_of(completion)).ids
    assert usage.completion_tokens == len(ids) + 1  # and the token that ends it


def test_several_pictures_and_turns_are_those_of_the_runtime(
    client: openai.OpenAI, pipeline: Pipeline, server: TritonServer
) -> None:
    first, second = drawn(1)[0].image, text_scene(Random(2), 128, 96, 3).image

    def turns(picture: object) -> list[dict[str, object]]:
        show = picture if callable(picture) else None
        assert show is not None
        return [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [show(first), show(second), {"type": "text", "text": "What do you see?"}]},
            {"role": "assistant", "content": "Two pictures."},
            {"role": "user", "content": [{"type": "text", "text": "Read the text."}]},
        ]

    theirs = text_of(ask(client, *turns(picture_part), max_completion_tokens=40))
    request = pipeline.request(turns(lambda image: {"type": "image", "image": image}))
    with GrpcClient(server.grpc_url) as runtime:
        ours = "".join(delta.text for delta in runtime.stream(request, Sampling(max_tokens=40)))
    assert theirs == ours


def test_videos(client: openai.OpenAI, tmp_path: Path) -> None:
    right = 0
    for seed in range(4):
        path, question = moving(tmp_path / "clip.mp4", seed)
        completion = ask(client, user(video_part(path), question.text))
        right += text_of(completion) == question.answer
        assert completion.usage is not None
        details = completion.usage.to_dict()["prompt_tokens_details"]
        assert isinstance(details, dict)
        assert details["video_tokens"] > 0
        assert details["image_tokens"] == 0
    assert right >= 3


def test_log_probabilities(client: openai.OpenAI) -> None:
    scene, _ = drawn(3)
    completion = ask(client, user(picture_part(scene.image), "Describe the image."), logprobs=True, top_logprobs=3)
    choice = completion.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert completion.usage is not None
    assert len(choice.logprobs.content) == completion.usage.completion_tokens
    for token in choice.logprobs.content:
        assert [other.logprob for other in token.top_logprobs] == sorted(
            (other.logprob for other in token.top_logprobs), reverse=True
        )
        assert len(token.top_logprobs) == 3
        assert token.token == token.top_logprobs[0].token  # greedy
        assert bytes(token.bytes or []).decode() == token.token
    assert "".join(token.token for token in choice.logprobs.content).startswith(text_of(completion))
    assert choice.logprobs.content[0].logprob <= 0


def test_stop_seed_and_length(client: openai.OpenAI) -> None:
    scene, _ = drawn(3)
    question = user(picture_part(scene.image), "Describe the image.")
    whole = text_of(ask(client, question))
    stopped = ask(client, question, stop=[" at"])
    assert text_of(stopped) == whole[: whole.index(" at")]
    assert stopped.choices[0].finish_reason == "stop"
    short = ask(client, question, max_completion_tokens=4)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 4
    hot = [text_of(ask(client, question, temperature=3, seed=seed, max_tokens=30)) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]


def test_a_hot_answer_follows_the_temperature_asked_for(client: openai.OpenAI) -> None:
    """Greedy where nothing is said, as the server is by itself."""
    scene, _ = drawn(3)
    question = user(picture_part(scene.image), "Describe the image.")
    assert len({text_of(ask(client, question, max_tokens=30)) for _ in range(3)}) == 1
    assert len({text_of(ask(client, question, max_tokens=30, temperature=3)) for _ in range(3)}) > 1
