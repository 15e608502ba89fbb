"""The trained model with tiles, whole way: right answers, transformers' tokens, and what a wrong device costs."""

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from contract.sampling import Sampling
from edge_runtime import Encoder, Pipeline
from edge_runtime.items.tiles import best_pinpoint
from tests.conftest import ROOT
from tests.families.conftest import served_of
from tests.families.served import Served
from tests.families.test_mutations import transposed
from tiny_model.questions import Question, about_scene
from tiny_model.scenes import shapes_scene, text_scene
from tiny_model.tiles.architecture import PINPOINTS, SIDE
from tiny_model.tiles.batches import KINDS, draw_size

MIN_RIGHT, MIN_FALL, MAX_TOKENS = 0.7, 0.2, 64
PLACED = ("describe", "where", "what_at", "read_text", "describe_text")
Asked = list[tuple[Any, Question]]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_of(ROOT / "models" / "tiny-tiles", tmp_path_factory.mktemp("tiny-tiles")) as made:
        yield made


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Two questions to each of 16 pictures of all sizes, which no training run has drawn: one needs places, one does not."""
    random, found = Random(20_26), []
    for number in range(16):
        scene = (text_scene if number % 4 == 3 else shapes_scene)(random, *draw_size(random), 2)
        questions = [question for question in about_scene(random, scene) if question.kind in KINDS]
        for needs_places in (True, False):
            fitting = [question for question in questions if (question.kind in PLACED) == needs_places]
            found.append((scene.image, random.choice(fitting)))
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
        inputs = bundled.inputs([[picture, question.text]])
        said = bundled.whole.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        assert tokens == without_end(bundled, said[0, inputs["input_ids"].shape[1] :].tolist())


def test_transposed_tiles_cost_answers(
    bundled: Served, asked: Asked, good: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions that need places, about pictures of two lines of two tiles."""
    chosen = [
        number
        for number, (picture, question) in enumerate(asked)
        if question.kind in PLACED and best_pinpoint(picture.height, picture.width, PINPOINTS) == (2 * SIDE, 2 * SIDE)
    ]
    assert len(chosen) >= 5
    transposed(monkeypatch)
    some = [asked[number] for number in chosen]
    wrong = answers(bundled, Pipeline(Encoder.from_bundle(bundled.bundle)), some)
    assert right(bundled, wrong, some) <= right(bundled, [good[number] for number in chosen], some) - MIN_FALL
