"""Qwen2-VL and Qwen2.5-VL from a checkpoint of the hub's form to their answers.

Pictures are compared with transformers' `generate` on the pixels. A video's positions are compared with a formula written
here, and its answer with transformers' model under these positions: transformers 5.3 and later puts the text behind a
video elsewhere than the models' release and vLLM do.
"""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract import families
from contract.card import ModelCard
from contract.embeddings import NAMES
from contract.errors import InvalidInput, ParityError
from contract.language import read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_items_alone, check_prompt
from contract.sampling import Sampling
from edge_runtime import Encoder, GrpcClient, Pipeline, Request
from edge_runtime.encoded_item import PRECISIONS
from edge_runtime.items.video_options import VideoOptions
from export import families as export_families
from export.gate import packs
from export.gate.processor import processor_gate
from export.gate.reference import load_reference
from export.language import export_language
from export.upload.listener import Listener, Question
from export.vision import export_vision
from serving.requests.shared_store import packed, unpacked
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.engine import TransformersEngine
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.families.models import picture
from tests.families.qwen2_models import FAMILIES, write
from tests.families.transform import add_transform
from tests.serving.wire import unary

NUM_TOKENS = 12
FPS = 1.6  # of the frames: 2.5 positions from one pair to the next where a second is two
CONVERSATIONS: dict[str, list[Any]] = {
    "one picture": [picture(150, 260, 1), "What is it?"],
    "two pictures behind the text": ["Look: ", picture(60, 130, 2), " and ", picture(200, 60, 3)],
    "text only": ["Hello,  world"],
}


@pytest.fixture(scope="module", autouse=True)
def few_packs() -> Iterator[None]:
    """The gate runs on packs that have every kind of window: whole, cut at one side, at both, none whole."""
    with pytest.MonkeyPatch.context() as patch:
        chosen = (((1, 2, 2),), ((1, 16, 16),), ((1, 22, 10),), ((2, 8, 20),), ((1, 2, 4), (3, 6, 10), (2, 18, 12)))
        patch.setattr(packs, "ALWAYS", chosen)
        patch.setattr(packs, "BUDGET_FLOP", 0)
        patch.setattr(packs, "SPLIT", ((4, 12, 22),))
        patch.setattr(packs, "LARGEST", ((1, 12, 8),))
        yield


@dataclass(frozen=True)
class Served:
    """A family's checkpoint, its bundle on the device, its language model in the engine."""

    family: str
    model: Path
    language: Path
    pipeline: Pipeline
    engine: TransformersEngine
    whole: Any
    reference: Any

    @property
    def card(self) -> ModelCard:
        return read_language_card(self.language)

    def prompt(self, request: Request, **changed: Any) -> Prompt:
        given = request.tensors(Sampling(), "fp32")
        names = ("image_grid_thw", "video_grid_thw", "video_second_per_grid")
        sent = {name: given.get(name) for name in names} | changed
        embeddings = {"vision_embeddings_fp32": given["vision_embeddings_fp32"]} if request.items else {}
        fingerprint = request.encoder_fingerprint if request.items else None
        ids = request.input_ids
        return check_prompt(
            self.card, Limits(), input_ids=ids, embeddings=embeddings, encoder_fingerprint=fingerprint, **sent
        )

    def inputs(self, content: list[Any]) -> Any:
        """What transformers' processor makes of a conversation."""
        pictures = [part for part in content if isinstance(part, Image.Image)]
        text = self.reference.apply_chat_template(
            messages(content), add_generation_prompt=True, tokenize=False, chat_template=self.template
        )
        given: dict[str, Any] = {"images": pictures} if pictures else {}
        if clips := [part for part in content if isinstance(part, list)]:
            given["videos"] = [np.stack([np.asarray(frame) for frame in clip]) for clip in clips]
            given["video_metadata"] = [
                {"fps": FPS, "total_num_frames": len(clip), "frames_indices": list(range(len(clip)))} for clip in clips
            ]
            given["do_sample_frames"] = False
        return self.reference(text=[text], **given, return_tensors="pt")

    @property
    def template(self) -> str:
        return (self.model / "chat_template.jinja").read_text()

    def expected(self, content: list[Any]) -> list[int]:
        """What the whole model says to the pixels of transformers' processor."""
        lengths = {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS, "do_sample": False}
        inputs = self.inputs(content)
        answer = self.whole.generate(**inputs, **lengths)
        return list(answer[0, inputs["input_ids"].shape[1] :].tolist())


def messages(content: list[Any]) -> list[dict[str, Any]]:
    def part(value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            return {"type": "text", "text": value}
        if isinstance(value, list):
            return {"type": "video", "video": value, "sample_fps": FPS}
        return {"type": "image", "image": value}

    return [{"role": "user", "content": [part(value) for value in content]}]


@pytest.fixture(scope="module", params=FAMILIES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    model = write(request.param, folder / "model")
    export_vision(str(model), folder / "bundle")
    add_transform(folder / "bundle")
    export_language(str(model), folder / "language")
    engine = TransformersEngine(load_language_model(folder / "language", "fp32"), Limits(), 16)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    reference = load_reference(model, request.param)
    pipeline = Pipeline(Encoder.from_bundle(folder / "bundle", threads=1))
    yield Served(request.param, model, folder / "language", pipeline, engine, whole, reference)
    engine.close()


async def _answer(engine: TransformersEngine, prompt: Prompt) -> list[int]:
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    return [token async for delta in engine.generate(prompt, sampling) for token in delta.token_ids]


def test_pictures_are_answered_as_by_the_whole_model_alone_and_together(served: Served) -> None:
    prompts = [served.prompt(served.pipeline.request(messages(content))) for content in CONVERSATIONS.values()]
    expected = [served.expected(content) for content in CONVERSATIONS.values()]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(_answer(served.engine, prompt) for prompt in (prompts * 3)[:8])))

    assert [asyncio.run(_answer(served.engine, prompt)) for prompt in prompts] == expected
    assert asyncio.run(together()) == (expected * 3)[:8]


def test_a_picture_travels_in_every_codec_and_is_heard_as_pixels_are(served: Served) -> None:
    """Each codec leaves rows near the tower's, under one name on both machines; export.codec's model hears rows rightly."""
    content, numbers = CONVERSATIONS["one picture"], served.pipeline.encoder.bundle.numbers
    request = served.pipeline.request(messages(content))
    (item,) = request.items
    for precision in PRECISIONS:
        tensors = request.tensors(Sampling(), precision)
        prompt = check_prompt(
            served.card,
            Limits(),
            input_ids=request.input_ids,
            embeddings={name: tensors[name] for name in NAMES if name in tensors},
            image_grid_thw=request.image_grid_thw,
            encoder_fingerprint=request.encoder_fingerprint,
            numbers=numbers,
        )
        assert list(prompt.keys) == request.keys(precision)
        (sent,) = prompt.contents
        main, levels = sent.floats(numbers)
        assert levels.shape == (0, *main.shape)
        norms = np.linalg.norm(main, axis=1) * np.linalg.norm(item.main, axis=1)
        assert ((main * item.main).sum(axis=1) / norms).min() > 0.9, precision
    listener, expected = Listener(served.model, served.card), served.expected(content)
    asked = Question(item, request.input_ids)
    assert listener.answer(asked, NUM_TOKENS) == expected
    felt = listener.gradients(asked, expected, torch.Generator().manual_seed(0))
    assert felt.shape == item.main.shape
    assert (np.linalg.norm(felt, axis=1) > 0).all()


def clip(number: int) -> list[Image.Image]:
    return [picture(120, 90, seed) for seed in range(number)]


def positions_of(ids: list[int], grid: tuple[int, int, int], card: ModelCard, step: float) -> list[list[int]]:
    """Positions of a prompt with one video: text counts on, and goes on behind the video's largest position."""
    frames, rows, columns = grid[0], grid[1] // 2, grid[2] // 2
    start = ids.index(card.video_token_id or -1)
    found = [[place] * 3 for place in range(start)]
    for frame in range(frames):
        for row in range(rows):
            for column in range(columns):
                found.append([start + int(frame * step), start + row, start + column])
    after = max(max(place) for place in found) + 1
    found += [[after + place] * 3 for place in range(len(ids) - len(found))]
    return found


def test_a_video_is_prepared_as_transformers_does_and_answered_under_the_releases_positions(served: Served) -> None:
    content: list[Any] = ["See ", clip(7), " What moves?"]
    request, inputs, card = served.pipeline.request(messages(content)), served.inputs(content), served.card
    assert request.input_ids.tolist() == inputs["input_ids"][0].tolist()
    assert request.video_grid_thw.tolist() == inputs["video_grid_thw"].tolist()
    step = 1.0
    if served.family == "qwen2_5_vl":
        step = 2 * 2 / FPS
        assert request.items[0].seconds == float(np.float32(float(inputs["second_per_grid_ts"][0])))
    prompt = served.prompt(request)
    ids, grid = request.input_ids.tolist(), tuple(request.video_grid_thw[0].tolist())
    expected = positions_of(ids, grid, card, step)
    found, delta = families.find(card.family).positions(prompt, card)
    assert found.T.tolist() == expected
    assert delta == expected[-1][0] + 1 - len(ids)
    said: list[int] = []
    for _ in range(NUM_TOKENS):
        grown = expected + [[expected[-1][0] + 1 + place] * 3 for place in range(len(said))]
        whole = torch.tensor([ids + said])
        logits = served.whole(
            input_ids=whole,
            attention_mask=torch.ones_like(whole),
            position_ids=torch.tensor(grown).T[:, None],  # (3, 1, S)
            pixel_values_videos=inputs["pixel_values_videos"],
            video_grid_thw=inputs["video_grid_thw"],
        ).logits
        said.append(int(logits[0, -1].argmax()))
    assert asyncio.run(_answer(served.engine, prompt)) == said
    theirs = served.whole.model.get_rope_index(
        torch.tensor([ids]),
        torch.tensor([[2 if token == card.video_token_id else 0 for token in ids]]),
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs.get("second_per_grid_ts"),
    )[0]
    assert (theirs[:, 0].T.tolist() == expected) == (grid[0] * step <= max(grid[1:]) // 2)  # why it is no oracle


def test_a_file_of_its_own_rate_says_its_seconds(served: Served) -> None:
    """40 frames at 10 a second, looked at 2 a second: 8 frames, a second from one pair to the next."""
    file = io.BytesIO()
    frames = [picture(64, 64, seed) for seed in range(40)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    part = {"type": "video", "video": file.getvalue()}
    (item,) = served.pipeline.items([{"role": "user", "content": [part]}])
    assert item.grid_thw[0] == 4
    assert item.seconds == (None if served.family == "qwen2_vl" else 1.0)
    with_part = part | {"video_start": 1.0, "video_end": 2.9, "nframes": 5}  # both references make the number even
    (item,) = served.pipeline.items([{"role": "user", "content": [with_part]}])
    assert item.grid_thw[0] == 2


def test_seconds_are_checked_and_name_the_item(served: Served) -> None:
    request = served.pipeline.request(messages([clip(4), "What?"]))
    if served.family == "qwen2_vl":
        with pytest.raises(InvalidInput, match="positions of this model do not follow time"):
            served.prompt(request, video_second_per_grid=np.ones(1, np.float32))
        return
    for wrong in (None, np.ones(2, np.float32), np.zeros(1, np.float32), np.full(1, np.nan, np.float32)):
        with pytest.raises(InvalidInput, match="video_second_per_grid"):
            served.prompt(request, video_second_per_grid=wrong)
    prompt = served.prompt(request)
    (content,) = prompt.contents
    other = served.prompt(request, video_second_per_grid=np.full(1, 3.5, np.float32))
    assert content.key == request.keys("fp32")[0] != other.keys[0]
    assert unpacked(packed(content)).key == content.key
    kept = check_items_alone(
        served.card,
        Limits(),
        embeddings={"vision_embeddings_fp32": request.main},
        video_grid_thw=request.video_grid_thw,
        video_second_per_grid=np.float32([request.items[0].seconds]),
        encoder_fingerprint=request.encoder_fingerprint,
    )
    again = check_prompt(
        served.card,
        Limits(),
        input_ids=request.input_ids,
        video_grid_thw=request.video_grid_thw,
        held=list(kept.contents),
    )
    assert again.seconds == prompt.seconds == (1.25,)
    far = served.pipeline.request(messages([clip(16), "What?"]))  # 7 hours: further than an engine's table of angles
    with pytest.raises(InvalidInput, match="leads to position"):
        served.prompt(far, video_second_per_grid=np.full(1, 3600, np.float32))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30, 61, 900])
def test_the_number_of_frames_is_even_and_none_lies_behind_the_video(served: Served, count: int) -> None:
    from edge_runtime import families as edge_families

    video = served.pipeline.encoder.bundle.manifest.video
    found = edge_families.find(served.family).indices(count, 24.0, video, VideoOptions())
    assert len(found) % 2 == 0 or count == 1
    assert found[0] == 0
    assert found[-1] < count
    assert (np.diff(found) > 0).all()


def test_frames_rounded_up_miss_the_gate(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate allows a few frames to lie one place beside, because transformers' products are inexact; not many."""
    from edge_runtime import families as edge_families

    family = edge_families.find(served.family)
    chosen = family.indices

    def indices(num_frames: int, *rest: Any) -> Any:
        count = len(chosen(num_frames, *rest))
        return np.minimum((np.arange(count) * num_frames + count - 1) // count, num_frames - 1)

    monkeypatch.setattr(family, "indices", indices)
    with pytest.raises(ParityError, match=r"frame \d"):
        processor_gate(served.reference, served.pipeline.encoder.bundle)


def test_windows_that_are_left_out_miss_the_gate(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if served.family == "qwen2_vl":
        pytest.skip("no windows")
    family = export_families.find(served.family)
    tower = family.tower
    monkeypatch.setattr(family, "tower", lambda config: replace(tower(config), window=0))
    with pytest.raises(ParityError):
        export_vision(str(served.model), tmp_path / "bundle")


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_other_precisions_pass_their_gates(served: Served, tmp_path: Path, precision: str) -> None:
    export_vision(str(served.model), tmp_path / "bundle", precision)
    item = Encoder.from_bundle(tmp_path / "bundle", threads=1).encode(
        served.pipeline.items(messages([picture(150, 260, 1)]))
    )
    assert np.isfinite(item.image_embeds).all()


def test_triton_answers_a_video_with_its_seconds(served: Served) -> None:
    if served.family == "qwen2_vl":
        pytest.skip("the other family has seconds")
    request = served.pipeline.request(messages(["See ", clip(7), picture(90, 60, 5), " What moves?"]))
    expected = asyncio.run(_answer(served.engine, served.prompt(request)))
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    with (
        TritonServer(settings(served.language, dtype="fp32")) as server,
        GrpcClient(server.grpc_url, precision="fp32") as client,
    ):
        for _ in range(2):  # the second time by key
            deltas = list(client.stream(request, sampling))
            assert [token for delta in deltas for token in delta.token_ids] == expected
        assert deltas[-1].num_uploaded == 0
        values = {"input_ids": request.input_ids, "vision_embeddings_fp32": request.main}
        values |= {"image_grid_thw": request.image_grid_thw, "video_grid_thw": request.video_grid_thw}
        values |= {"encoder_fingerprint": request.encoder_fingerprint, "sampling_parameters": '{"max_tokens": 2}'}
        with pytest.raises(InferenceServerException, match=r"\[INVALID_ARG\] video_second_per_grid"):
            unary(server.grpc_url, values)
