"""The bundled model with tiles keeps its promises, and its training data is what a device makes."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, LlavaNextForConditionalGeneration

from contract.tiles import Tiles
from export.families.llava_next import facts_of
from tests.conftest import ROOT
from tests.processor import load_processor
from tiny_model.evaluation import markdown
from tiny_model.tiles.architecture import BOS, IMAGE, TILES
from tiny_model.tiles.batches import KINDS, TileCollator, draw_item
from tiny_model.tiles.evaluate import FAULTS, right_answers
from tiny_model.tiles.passes import packed, taken
from tiny_model.vocabulary import build_tokenizer

CHECKPOINT = ROOT / "models" / "tiny-tiles"
MIN_ACCURACY, MIN_FALL = 0.85, 0.20
DETECTED = ("tiles zeroed", "tiles transposed", "rows reversed")


@pytest.fixture(scope="module")
def model() -> LlavaNextForConditionalGeneration:
    return LlavaNextForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(more_special=(BOS, IMAGE))


def test_published_evaluation_keeps_the_promise() -> None:
    published = json.loads((CHECKPOINT / "evaluation.json").read_text())
    tables = published["accuracy"]
    assert published["claimed_kinds"] == list(KINDS)
    assert tables.keys() == FAULTS.keys()
    assert tables["none"]["claimed"] >= MIN_ACCURACY
    for fault in DETECTED:
        assert tables[fault]["claimed"] <= tables["none"]["claimed"] - MIN_FALL


def test_the_page_shows_the_published_evaluation() -> None:
    tables = json.loads((CHECKPOINT / "evaluation.json").read_text())["accuracy"]
    assert markdown(tables) in (ROOT / "docs" / "tiny-model.md").read_text()


def test_it_is_a_checkpoint_like_any_other() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    assert type(model) is LlavaNextForConditionalGeneration
    assert type(load_processor(CHECKPOINT)).__name__ == "LlavaNextProcessor"
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 10e6


def test_tokenizer_is_reproduced(tokenizer: Tokenizer) -> None:
    saved = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    assert saved.get_vocab() == tokenizer.get_vocab()
    assert saved.encode("Read the text.").ids == [saved.token_to_id(BOS), *tokenizer.encode("Read the text.").ids]


def test_training_cuts_as_the_checkpoints_processor_says() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    facts = facts_of(CHECKPOINT, config)
    assert facts.tiles == Tiles(**vars(TILES))
    assert facts.image.mean == facts.image.std == (0.5, 0.5, 0.5)


def test_rows_of_a_batch_are_transformers(model: LlavaNextForConditionalGeneration, tokenizer: Tokenizer) -> None:
    """What training packs, and what evaluation packs with no fault, is what the whole model makes of the pixels."""
    random = Random(4)
    for kind, *size in (("shapes", 150, 180), ("text", 260, 100)):
        item = draw_item(random, kind, *size)
        batch = TileCollator(tokenizer).collated([item])
        with torch.no_grad():
            pixels = batch.pixel_values[None]
            want = torch.cat(model.model.get_image_features(pixels, batch.sizes).pooler_output)
            states = taken(model, batch)
            torch.testing.assert_close(packed(model, states, batch), want)
            tiles = model.model.multi_modal_projector(states).numpy()
            got = FAULTS["none"](tiles, model.model.image_newline.numpy(), item.size)
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert int((batch.input_ids == model.config.image_token_id).sum()) == len(want)


def test_targets_stand_where_the_shapes_are(tokenizer: Tokenizer) -> None:
    """A target's colour is the colour of the patch's middle."""
    from tiny_model.scenes import COLORS

    item = draw_item(Random(9), "shapes", 190, 140)
    side, patch = TILES.side_rows, TILES.patch
    near = []
    for tile, colors in zip(item.tiles, item.targets[1].reshape(-1, side, side), strict=True):
        for row, column in np.argwhere(colors):
            middle = tile[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].reshape(-1, 3)
            want = np.array(list(COLORS.values())[colors[row, column] - 1])
            near.append(np.abs(middle.astype(int) - want).sum(1).min() < 40)
    assert len(near) > 10
    assert np.mean(near) > 0.9


def test_faults_change_what_they_should(model: LlavaNextForConditionalGeneration, tokenizer: Tokenizer) -> None:
    """A picture of four tiles whose canvas it does not fill: each fault moves or empties rows, and none loses one."""
    item = draw_item(Random(5), "shapes", 190, 150)
    batch = TileCollator(tokenizer).collated([item])
    with torch.no_grad():
        tiles = model.model.multi_modal_projector(taken(model, batch)).numpy()
    newline = model.model.image_newline.detach().numpy()
    good = FAULTS["none"](tiles, newline, item.size)
    for name, fault in FAULTS.items():
        wrong = fault(tiles, newline, item.size)
        assert wrong.shape == good.shape
        assert np.array_equal(wrong, good) == (name in ("none", "BOS lost")), name
    assert right_answers(model, item, TileCollator(tokenizer), ("none",))["none"]


def test_training_runs_and_packages(tmp_path: Path) -> None:
    from tiny_model.tiles.package import package
    from tiny_model.tiles.train import KINDS as KINDS_DRAWN
    from tiny_model.tiles.train import Trainer

    trainer = Trainer(tmp_path / "run", seed=0)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train_tower(0.01, KINDS_DRAWN, count=2)  # minutes, so that a slow machine takes one step
    trainer.train_all(0.01, count=2)
    assert any(not torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))
    again = Trainer(tmp_path / "run", seed=0, resume=True)
    assert all(torch.equal(*pair) for pair in zip(again.model.parameters(), trainer.model.parameters(), strict=True))
    package(tmp_path / "run", tmp_path / "packed")
    assert {f.name for f in (tmp_path / "packed").iterdir()} | {"evaluation.json"} == {
        f.name for f in CHECKPOINT.iterdir()
    }
    LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "packed")
