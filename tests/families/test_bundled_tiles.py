"""The trained model with tiles, whole way: right answers, transformers' tokens, and what a wrong device costs."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from contract.sampling import Sampling
from edge_runtime import Encoder, GrpcClient, Pipeline, Request
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tests.engine import ENGINE, settings
from tests.families.conftest import served_of
from tests.families.models import ALL
from tests.families.served import Served
from tests.families.test_mutations import transposed
from tiny_model.questions import Question, about_scene
from tiny_model.scenes import shapes_scene, text_scene
from tiny_model.tiles.batches import KINDS, draw_size

MIN_RIGHT, MIN_FALL, MAX_TOKENS = 0.7, 0.2, 64
Asked = list[tuple[Any, Question]]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_of(ROOT / "models" / "tiny-tiles", tmp_path_factory.mktemp("tiny-tiles")) as made:
        yield made


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Two questions to each of 16 pictures of all sizes, which no training run has drawn."""
    random, found = Random(20_26), []
    for number in range(16):
        scene = (text_scene if number % 4 == 3 else shapes_scene)(random, *draw_size(random), 2)
        questions = [question for question in about_scene(random, scene) if question.kind in KINDS]
        found += [(scene.image, question) for question in random.sample(questions, 2)]
    return found


def answers(served: Served, pipeline: Pipeline, asked: Asked) -> list[list[int]]:
    """The engine's tokens without the end of the text, all questions asked at once."""

    async def one(picture: Any, question: Question) -> list[int]:
        prompt = served.prompt(pipeline.ask(picture, question.text))
        deltas = [delta async for delta in served.engine.generate(prompt, Sampling(max_tokens=MAX_TOKENS))]
        return without_end(served, [token for delta in deltas for token in delta.token_ids])

    async def together() -> list[list[int]]:
        return await asyncio.gather(*(one(*question) for question in asked))

    return asyncio.run(together())


def without_end(served: Served, tokens: list[int]) -> list[int]:
    ends = served.whole.generation_config.eos_token_id
    return [token for token in tokens if token not in ends]


def generated(served: Served, picture: Any, question: Question) -> list[int]:
    """What the whole model says to the pixels of transformers' own processor, without the end of the text."""
    inputs = served.inputs([[picture, question.text]])
    said = served.whole.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
    return without_end(served, said[0, inputs["input_ids"].shape[1] :].tolist())


def right(served: Served, found: list[list[int]], asked: Asked) -> float:
    """The share of right answers."""
    texts = [served.reference.tokenizer.decode(tokens) for tokens in found]
    return sum(text == question.answer for text, (_, question) in zip(texts, asked, strict=True)) / len(asked)


@pytest.fixture(scope="module")
def good(bundled: Served, asked: Asked) -> list[list[int]]:
    return answers(bundled, bundled.pipeline, asked)


def test_answers_are_right(bundled: Served, asked: Asked, good: list[list[int]]) -> None:
    assert right(bundled, good, asked) >= MIN_RIGHT


def test_tokens_are_those_of_generate(bundled: Served, asked: Asked, good: list[list[int]]) -> None:
    """On the pixels of transformers' own processor, whatever the answer is worth."""
    for (picture, question), tokens in list(zip(asked, good, strict=True))[::4]:
        assert tokens == generated(bundled, picture, question)


@pytest.mark.skipif(ENGINE == "transformers" and not ALL, reason="the demo's test asks this model through a Triton")
def test_a_server_answers_as_generate_does(bundled: Served, asked: Asked) -> None:
    """Through a real Triton on the engine of the run: one after the other, and eight at once."""
    requests = [bundled.pipeline.ask(picture, question.text) for picture, question in asked[:8]]
    expected = [generated(bundled, picture, question) for picture, question in asked[:8]]
    sampling = Sampling(max_tokens=MAX_TOKENS)
    served = settings(bundled.language, dtype="fp32", bundle=str(bundled.bundle))
    with TritonServer(served) as server, GrpcClient(server.grpc_url, precision="fp32") as client:

        def answer(request: Request) -> list[int]:
            tokens = [token for delta in client.stream(request, sampling) for token in delta.token_ids]
            return without_end(bundled, tokens)

        assert [answer(request) for request in requests] == expected
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(answer, requests)) == expected
        assert server.poll() is None, server.log_tail()


def test_transposed_tiles_cost_answers(bundled: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions of pictures that become two lines of two tiles."""
    random, asked = Random(4), []
    for _ in range(12):
        scene = shapes_scene(random, random.randint(140, 192), random.randint(140, 192), 2)
        asked += [(scene.image, question) for question in about_scene(random, scene) if question.kind == "describe"]
    good = right(bundled, answers(bundled, bundled.pipeline, asked), asked)
    transposed(monkeypatch)
    wrong = answers(bundled, Pipeline(Encoder.from_bundle(bundled.bundle)), asked)
    assert right(bundled, wrong, asked) <= good - MIN_FALL
