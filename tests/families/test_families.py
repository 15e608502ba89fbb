"""Each tile family from a whole checkpoint to its answers: tokens are those of transformers' `generate` on the pixels."""

import asyncio
import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from contract.errors import BundleError, InvalidInput, MediaError
from contract.limits import Limits
from contract.manifest import read_manifest
from contract.prompt import check_prompt
from edge_runtime import EmbeddingCache, Encoder, Pipeline
from edge_runtime.__main__ import main
from edge_runtime.items.patches import to_patches
from edge_runtime.items.workers import DecodingLimits
from export import families
from export.gate.packs import flop
from export.gate.tiles import SIZES
from export.source.checkpoint import Checkpoint
from export.vision import export_vision
from tests.families.models import ALL, IDS, KINDS, picture
from tests.families.served import CONVERSATIONS, Served, clip, conversations, messages, png


@pytest.mark.parametrize("name", [*CONVERSATIONS, "video", "a picture and a video"])
def test_tokens_are_those_of_the_whole_model(served: Served, name: str) -> None:
    found = conversations(served.card.family)
    if name not in found:
        pytest.skip("the family takes no videos")
    request = served.request(found[name])
    assert request.input_ids.tolist() == served.inputs(found[name])["input_ids"][0].tolist()
    assert asyncio.run(served.answer(served.prompt(request))) == served.expected(found[name])


PIXELS = ("pixel_values", "pixel_attention_mask", "image_sizes", "batch_num_images")
TYPED = "Is <image>, <video> or <IMG_CONTEXT> a mark?"


@pytest.mark.parametrize("place", ["one picture", "text only", "video"])
def test_a_mark_that_somebody_typed_is_text(served: Served, place: str) -> None:
    """Beside a picture, alone and beside a video: the tokens spell it, and the pads are those of the items alone."""
    found = conversations(served.card.family)
    if place not in found:
        pytest.skip("the family takes no videos")
    (turn,) = found[place]
    ids, other = (served.request([[*turn, text]]).input_ids for text in (TYPED, "QZX"))
    decode = served.pipeline.encoder.bundle.tokenizer.decode
    typed, expected = (decode(one.tolist(), skip_special_tokens=False) for one in (ids, other))
    assert typed == expected.replace("QZX", TYPED)
    marks = {IDS["<video>"]} if KINDS[served.card.family].video else set()  # elsewhere it is a token without a meaning
    for pad in marks.union(served.card.pad_token_ids):
        assert (ids == pad).sum() == (other == pad).sum()
    assert asyncio.run(served.answer(served.prompt(served.request([[*turn, TYPED]]))))


def test_together_they_say_what_they_say_alone(served: Served) -> None:
    asked = list(conversations(served.card.family).values()) * 2
    prompts = [served.prompt(served.request(turns)) for turns in asked]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(served.answer(prompt) for prompt in prompts)))

    assert len(prompts) >= 8
    assert asyncio.run(together()) == [served.expected(turns) for turns in asked]


def test_device_and_server_give_an_item_one_name(served: Served) -> None:
    """In every conversation: a name that differs costs an upload each time."""
    for turns in conversations(served.card.family).values():
        request = served.request(turns)
        assert list(served.prompt(request).keys) == request.keys("fp32")


def test_the_cards_agree_and_the_bundle_says_what_was_compared(served: Served) -> None:
    manifest = read_manifest(served.bundle)
    assert manifest.card == served.card
    assert manifest.card.tiles is not None
    assert {row["gate"] for row in manifest.gates} == {"processor", "prompt", "rows"}
    assert {row["output"] for row in manifest.parity} == {"image_embeds"}


def test_rows_are_those_of_get_image_features(served: Served) -> None:
    """Of pictures of 22 sizes, from their pixels to their place in the prompt."""
    for seed, (height, width) in enumerate(SIZES if ALL else SIZES[::5]):
        turns = [[picture(width, height, seed), "What?"]]
        inputs = served.inputs(turns)
        given = {name: inputs[name] for name in PIXELS if name in inputs}
        with torch.no_grad():
            found = served.whole.model.get_image_features(**given).pooler_output
        expected = (torch.cat(list(found)) if isinstance(found, list | tuple) else found).flatten(0, -2).numpy()
        rows = served.request(turns).main
        assert rows.shape == expected.shape
        assert np.abs(rows - expected).max() < 1e-4 * np.sqrt((expected**2).mean()), (height, width)


def test_pixels_are_near_torchvisions(served: Served) -> None:
    """Within two grey levels of the backend that transformers takes where torchvision is installed."""
    other = copy.copy(served.reference)
    other.image_processor = transformers.AutoImageProcessor.from_pretrained(served.model, backend="torchvision")
    tiles = served.card.tiles
    assert tiles is not None
    for seed, (height, width) in enumerate(SIZES if ALL else SIZES[::7]):
        turns = [[picture(width, height, seed)]]
        values = replace(served, reference=other).processed(turns)["pixel_values"].numpy()
        values = values.reshape(-1, *values.shape[-3:]).transpose(0, 2, 3, 1)
        levels = np.rint((values * other.image_processor.image_std + other.image_processor.image_mean) * 255)
        theirs, _ = to_patches(tiles.seen_part(levels.astype(np.uint8)), tiles.patch, tiles.merge, 1)
        (item,) = served.pipeline.items(messages(turns))
        assert np.abs(item.patches.astype(int) - theirs).max() <= 2, (height, width)


def test_bench_states_the_share_of_the_ceiling(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """It counts the work of all tiles: that of the layers, and that of attention."""
    assert main(["bench", "--bundle", str(served.bundle), "--threads", "1", "--size", "150", "--repeats", "1", "--json"]) == 0  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    (item,) = served.pipeline.items(messages([[picture(150, 150)]]))
    tower = families.tower(Checkpoint(served.model).facts)
    assert report["gigaops_per_picture"] == pytest.approx(flop(tower, (item.tower_thw,)) / 1e9, rel=0.05, abs=0.006)
    assert 0 < report["share_of_ceiling"] < 2


def test_rows_in_another_order_change_the_answer(served: Served) -> None:
    """The rows are right and their places are not: a random model notices it in one conversation at least."""
    changed = []
    for content in CONVERSATIONS.values():
        request = served.request(content)
        for item in request.items:
            item.main = np.ascontiguousarray(item.main[::-1])
        changed.append(asyncio.run(served.answer(served.prompt(request))) != served.expected(content))
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


def test_a_picture_of_more_tiles_than_the_device_allows_is_refused(served: Served) -> None:
    """Here and in a process of the gateway; what the checkpoint's processor makes is the default."""
    asked = messages([[png(picture(200, 300, 3)), "What?"]])
    count = served.pipeline.items(asked)[0].tower_thw[0]
    tiles = served.card.tiles
    assert tiles is not None
    assert count <= tiles.most_tiles
    encoder = served.pipeline.encoder
    assert Pipeline(encoder, max_tiles=count).items(asked)
    if count > 1:
        for limited in (
            Pipeline(encoder, max_tiles=count - 1),
            Pipeline(encoder, max_tiles=count - 1, decoding=DecodingLimits()),
        ):
            with pytest.raises(MediaError, match=f"becomes {count} tiles, {count - 1} are allowed"):
                limited.items(asked)
            limited.close()
    with pytest.raises(InvalidInput, match="max_tiles is 0, at least 1"):
        Pipeline(encoder, max_tiles=0)


def test_the_command_takes_max_tiles(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(picture(200, 300, 3)))
    (item,) = served.pipeline.items(messages([[path.read_bytes()]]))
    count = item.tower_thw[0]
    encode = ["encode", "--bundle", str(served.bundle), "--out", str(tmp_path / "rows.npz"), str(path)]
    assert main([*encode, "--max-tiles", str(count)]) == 0
    if count > 1:
        assert main([*encode, "--max-tiles", str(count - 1)]) == 2
        assert f"becomes {count} tiles, {count - 1} are allowed" in capsys.readouterr().err


def test_a_processor_that_does_otherwise_is_refused(served: Served, tmp_path: Path) -> None:
    model = Path(shutil.copytree(served.model, tmp_path / "model"))
    path = model / "processor_config.json"
    values = json.loads(path.read_text())
    right, values["image_processor"]["resample"] = values["image_processor"]["resample"], 2
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=f"resample is 2, the device does {right}"):
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
    assert math.prod(item.grid_thw) == len(rows(cached, first, second))


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
