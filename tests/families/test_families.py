"""Each tile family from a whole checkpoint to its answers: tokens are those of transformers' `generate` on the pixels."""

import asyncio
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
from edge_runtime import Encoder, Pipeline, Request
from export.gate.tiles import load_reference
from export.language import export_language
from export.vision import export_vision
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from tests.families.models import IDS, KINDS, picture, write

NUM_TOKENS = 12
CONVERSATIONS: dict[str, list[Any]] = {
    "one picture": [picture(90, 60, 1), "What is it?"],
    "a wide picture behind the text": ["Look: ", picture(300, 60, 2)],
    "two pictures of different sizes": [picture(200, 60, 3), " and ", picture(60, 130, 4), "Which?"],
    "text only": [" Hello,  world"],
}


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

    def request(self, content: list[Any]) -> Request:
        return self.pipeline.request(messages(content))

    def prompt(self, request: Request) -> Prompt:
        given = {"vision_embeddings_fp32": request.main} if request.items else {}
        fingerprint = request.encoder_fingerprint if request.items else None
        return check_prompt(
            self.card,
            Limits(),
            input_ids=request.input_ids,
            embeddings=given,
            image_grid_thw=request.image_grid_thw,
            encoder_fingerprint=fingerprint,
        )

    def expected(self, content: list[Any]) -> list[int]:
        """What the whole model says to the pixels of transformers' processor."""
        pictures = [part for part in content if not isinstance(part, str)]
        text = self.reference.apply_chat_template(messages(content), add_generation_prompt=True, tokenize=False)
        inputs = self.reference(text=[text], **({"images": [pictures]} if pictures else {}), return_tensors="pt")
        ids = inputs["input_ids"]
        given = {name: inputs[name] for name in ("pixel_values", "image_sizes") if name in inputs}
        lengths = {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS, "do_sample": False}
        answer = self.whole.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **lengths)
        return list(answer[0, ids.shape[1] :].tolist())


def messages(content: list[Any]) -> list[dict[str, Any]]:
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
        for part in content
    ]
    return [{"role": "user", "content": parts}]


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    model = write(request.param, folder / "model")
    export_vision(str(model), folder / "bundle")
    export_language(str(model), folder / "language")
    engine = TransformersEngine(load_language_model(folder / "language", "fp32"), Limits(), 16)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    reference = load_reference(model, request.param)
    reference.chat_template = (model / "chat_template.jinja").read_text()
    pipeline = Pipeline(Encoder.from_bundle(folder / "bundle"))
    yield Served(model, folder / "bundle", folder / "language", pipeline, engine, whole, reference)
    engine.close()


async def _answer(engine: TransformersEngine, prompt: Prompt) -> list[int]:
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    return [token async for delta in engine.generate(prompt, sampling) for token in delta.token_ids]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_are_those_of_the_whole_model(served: Served, name: str) -> None:
    content = CONVERSATIONS[name]
    prompt = served.prompt(served.request(content))
    assert asyncio.run(_answer(served.engine, prompt)) == served.expected(content)


def test_together_they_say_what_they_say_alone(served: Served) -> None:
    prompts = [served.prompt(served.request(content)) for content in CONVERSATIONS.values()] * 2

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(_answer(served.engine, prompt) for prompt in prompts)))

    assert asyncio.run(together()) == [served.expected(content) for content in CONVERSATIONS.values()] * 2


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
    with pytest.raises(InvalidInput, match="video_grid_thw was sent, this model has no pads of videos"):
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


def test_a_video_is_written_as_transformers_writes_it(served: Served) -> None:
    """A run and a heading a frame where the family has videos; a typed refusal where it has none."""
    family = served.card.family
    frames = [picture(90, 60, seed) for seed in range(3)]
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "What happens?"}]
    conversation = [{"role": "user", "content": content}]
    if not KINDS[family].video:
        with pytest.raises(MediaError, match="takes pictures only"):
            served.pipeline.request(conversation)
        return
    request = served.pipeline.request(conversation)
    processor = transformers.AutoProcessor.from_pretrained(served.model)
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    clip = np.stack([np.asarray(frame) for frame in frames])
    inputs = processor(text=[text], videos=[clip], do_sample_frames=False, return_tensors="pt")
    assert request.input_ids.tolist() == inputs["input_ids"][0].tolist()
    features = served.whole.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output.detach()
    expected = features.flatten(0, 1).numpy()
    assert request.main.shape == expected.shape
    cosines = (request.main * expected).sum(1) / np.linalg.norm(request.main, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999  # torchvision's filter differs from Pillow's by up to 2 grey levels


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
