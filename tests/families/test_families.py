"""Each tile family from a whole checkpoint to its answers: tokens are those of transformers' `generate` on the pixels."""

import asyncio
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from contract.card import ModelCard
from contract.errors import BundleError, InvalidInput, MediaError
from contract.language import read_language_card
from contract.limits import Limits
from contract.manifest import read_manifest
from contract.prompt import Prompt, check_prompt
from contract.sampling import Sampling
from edge_runtime import EmbeddingCache, Encoder, Pipeline, Request
from edge_runtime.items.workers import DecodingLimits
from export.language import export_language
from export.vision import export_vision
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.families.models import IDS, KINDS, picture, write
from tests.processor import load_processor

NUM_TOKENS = 12
Turn = list[Any]  # texts, pictures, and lists of frames
CONVERSATIONS: dict[str, list[Turn]] = {  # the user's turns, and between them the model's
    "one picture": [[picture(90, 60, 1), "What is it?"]],
    "a wide picture behind the text": [["Look: ", picture(300, 60, 2)]],
    "two pictures of different sizes": [[picture(200, 60, 3), " and ", picture(60, 130, 4), "Which?"]],
    "text only": [[" Hello,  world"]],
    "two turns": [[picture(77, 160, 5), "What?"], ["A star."], ["Sure?"]],
    "a picture a turn": [[picture(90, 90, 6), "A?"], ["1"], [picture(50, 160, 7), "B?"]],
}


def clip(side: int) -> list[Any]:
    """Frames of a tile's size, so that no filter stands between the device and transformers' video processor."""
    return [picture(side, side, seed) for seed in (8, 9, 10)]


def conversations(family: str) -> dict[str, list[Turn]]:
    """All that the family takes."""
    if not KINDS[family].video:
        return CONVERSATIONS
    frames = clip(KINDS[family].side)
    videos = {
        "video": [[frames, "What happens?"]],
        "a picture and a video": [[picture(90, 60, 1), "then", frames, "What?"]],
    }
    return CONVERSATIONS | videos


@dataclass(frozen=True)
class Served:
    """A family's checkpoint, its bundle on the device, its language model in the engine."""

    model: Path
    bundle: Path
    language: Path
    pipeline: Pipeline
    engine: TransformersEngine
    whole: Any
    reference: Any

    @property
    def card(self) -> ModelCard:
        return read_language_card(self.language)

    def request(self, turns: list[Turn]) -> Request:
        return self.pipeline.request(messages(turns))

    def prompt(self, request: Request) -> Prompt:
        given = {"vision_embeddings_fp32": request.main} if request.items else {}
        fingerprint = request.encoder_fingerprint if request.items else None
        return check_prompt(
            self.card,
            Limits(),
            input_ids=request.input_ids,
            embeddings=given,
            image_grid_thw=request.image_grid_thw,
            video_grid_thw=request.video_grid_thw,
            encoder_fingerprint=fingerprint,
        )

    def expected(self, turns: list[Turn]) -> list[int]:
        """What the whole model says to the pixels of transformers' processor."""
        inputs = self.inputs(turns)
        ids = inputs["input_ids"]
        given = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        lengths = {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS, "do_sample": False}
        answer = self.whole.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **lengths)
        return list(answer[0, ids.shape[1] :].tolist())

    def inputs(self, turns: list[Turn]) -> Any:
        """What transformers' processor makes of the turns; the text stays as the template made it."""
        parts = [part for turn in turns for part in turn]
        text = self.reference.apply_chat_template(messages(turns), add_generation_prompt=True, tokenize=False)
        pictures = [part for part in parts if not isinstance(part, str | list)]
        videos = [np.stack([np.asarray(frame) for frame in part]) for part in parts if isinstance(part, list)]
        given: dict[str, Any] = {"images": [pictures]} if pictures else {}
        if videos:
            given |= {"videos": [videos], "do_sample_frames": False}
        return self.reference(text=[text], **given, return_tensors="pt")


def png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def messages(turns: list[Turn]) -> list[dict[str, Any]]:
    def part(value: Any) -> dict[str, Any]:
        kind = "text" if isinstance(value, str) else "video" if isinstance(value, list) else "image"
        return {"type": kind, kind: value}

    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": [part(value) for value in turn]} for n, turn in enumerate(turns)]


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    model = write(request.param, folder / "model")
    export_vision(str(model), folder / "bundle")
    export_language(str(model), folder / "language")
    engine = TransformersEngine(load_language_model(folder / "language", "fp32"), Limits(), 16)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    reference = load_processor(model)
    pipeline = Pipeline(Encoder.from_bundle(folder / "bundle"))
    yield Served(model, folder / "bundle", folder / "language", pipeline, engine, whole, reference)
    engine.close()


async def _answer(engine: TransformersEngine, prompt: Prompt) -> list[int]:
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    return [token async for delta in engine.generate(prompt, sampling) for token in delta.token_ids]


@pytest.mark.parametrize("name", [*CONVERSATIONS, "video", "a picture and a video"])
def test_tokens_are_those_of_the_whole_model(served: Served, name: str) -> None:
    found = conversations(served.card.family)
    if name not in found:
        pytest.skip("the family has no videos")
    request = served.request(found[name])
    assert request.input_ids.tolist() == served.inputs(found[name])["input_ids"][0].tolist()
    assert asyncio.run(_answer(served.engine, served.prompt(request))) == served.expected(found[name])


def test_together_they_say_what_they_say_alone(served: Served) -> None:
    asked = list(conversations(served.card.family).values()) * 2
    prompts = [served.prompt(served.request(turns)) for turns in asked]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(_answer(served.engine, prompt) for prompt in prompts)))

    assert len(prompts) >= 8
    assert asyncio.run(together()) == [served.expected(turns) for turns in asked]


def test_the_cards_agree_and_the_bundle_says_what_was_compared(served: Served) -> None:
    manifest = read_manifest(served.bundle)
    assert manifest.card == served.card
    assert manifest.card.tiles is not None
    assert {row["gate"] for row in manifest.gates} == {"processor", "prompt"}
    assert {row["output"] for row in manifest.parity} == {"image_embeds"}


def test_rows_in_another_order_change_the_answer(served: Served) -> None:
    """The rows are right and their places are not: a random model notices it in one of three conversations at least."""
    changed = []
    for content in list(CONVERSATIONS.values())[:3]:
        request = served.request(content)
        for item in request.items:
            item.main = np.ascontiguousarray(item.main[::-1])
        changed.append(asyncio.run(_answer(served.engine, served.prompt(request))) != served.expected(content))
    assert any(changed)


def test_what_fixed_tiles_cannot_do_is_refused(served: Served) -> None:
    sized = [{"type": "image", "image": picture(90, 60), "max_pixels": 4096}, {"type": "text", "text": "What?"}]
    with pytest.raises(MediaError, match="max_pixels"):
        served.pipeline.request([{"role": "user", "content": sized}])
    request = served.request(CONVERSATIONS["one picture"])
    has_video_pads = served.card.video_token_id is not None
    wrong = "pad tokens" if has_video_pads else "video_grid_thw was sent, this model has no pads of videos"
    with pytest.raises(InvalidInput, match=wrong):
        check_prompt(
            served.card,
            Limits(),
            input_ids=request.input_ids,
            embeddings={"vision_embeddings_fp32": request.main},
            video_grid_thw=request.image_grid_thw,
            encoder_fingerprint=request.encoder_fingerprint,
        )


def test_a_processor_that_does_otherwise_is_refused(served: Served, tmp_path: Path) -> None:
    model = Path(shutil.copytree(served.model, tmp_path / "model"))
    path = model / "processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"]["resample"] = 2
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match="resample is 2, the device does 3"):
        export_vision(str(model), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_video_needs_a_family_that_takes_videos(served: Served) -> None:
    if KINDS[served.card.family].video:
        return  # test_tokens_are_those_of_the_whole_model asks about one
    with pytest.raises(MediaError, match="takes pictures only"):
        served.request([[clip(56), "What happens?"]])


def test_a_process_that_decodes_makes_the_same_items(served: Served) -> None:
    """The gateway's way: the pixels of others are made in a process of its own, which hears how many pictures there are."""
    pictures = [png(picture(200, 60, 3)), png(picture(60, 130, 4))]
    gateway = Pipeline(served.pipeline.encoder, decoding=DecodingLimits())
    try:
        for parts in (pictures, pictures[:1]):
            content = [{"type": "image", "image": data} for data in parts]
            asked = [{"role": "user", "content": content}]
            ours, theirs = gateway.items(asked), served.pipeline.items(asked)
            assert [item.grid_thw for item in ours] == [item.grid_thw for item in theirs]
            assert [item.arranged for item in ours] == [item.arranged for item in theirs]
            assert all(np.array_equal(a.patches, b.patches) for a, b in zip(ours, theirs, strict=True))
    finally:
        gateway.close()


def test_a_picture_has_other_rows_beside_others_where_the_family_says_so(served: Served) -> None:
    """Nothing that is remembered of a picture alone is taken for it in company, and the other way round."""
    first, second = png(picture(200, 60, 3)), png(picture(60, 130, 4))
    cached = Pipeline(served.pipeline.encoder, cache=EmbeddingCache())

    def rows(pipeline: Pipeline, *pictures: bytes) -> Any:
        content = [{"type": "image", "image": data} for data in pictures]
        return pipeline.request([{"role": "user", "content": content}]).items[0].main

    for shown in ((first,), (first, second), (first,), (first, second), (second, first), (second,)):
        assert np.array_equal(rows(cached, *shown), rows(served.pipeline, *shown))
    differs = len(rows(cached, first)) != len(rows(cached, first, second))
    assert differs == (served.card.family == "llava_onevision")
    part = [{"role": "user", "content": [{"type": "image", "image": first}]}]
    (item,) = served.pipeline.items(part, pictures=2)  # a thin client's server sees one picture after the other
    assert item.grid_thw[2] == len(rows(cached, first, second))


def test_a_template_may_write_the_start_of_a_text_itself(served: Served, tmp_path: Path) -> None:
    """transformers adds no second <s> to a text that begins with one; neither does the device."""
    model = Path(shutil.copytree(served.model, tmp_path / "model"))
    path = model / "chat_template.jinja"
    path.write_text("<s>" + path.read_text())
    export_vision(str(model), tmp_path / "bundle")
    request = Pipeline(Encoder.from_bundle(tmp_path / "bundle")).request(messages(CONVERSATIONS["one picture"]))
    processor = transformers.AutoProcessor.from_pretrained(model)
    content = messages(CONVERSATIONS["one picture"])
    given = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "np"}
    assert request.input_ids.tolist() == processor.apply_chat_template(content, **given)["input_ids"][0].tolist()
    assert request.input_ids.tolist().count(IDS["<s>"]) == 1
