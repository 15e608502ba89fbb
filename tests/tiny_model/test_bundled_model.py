"""The bundled model keeps its promises: it answers, and it stops answering when the server is wrong."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from tests.conftest import CHECKPOINT, ROOT
from tests.processor import load_processor
from tiny_model.evaluate import FAULTS, accuracy
from tiny_model.evaluation import markdown
from tiny_model.questions import CLAIMED
from tiny_model.vocabulary import build_tokenizer

MIN_ACCURACY, MIN_FALL = 0.85, 0.20
DETECTED = ("deepstack dropped", "positions 1-D")


@pytest.fixture(scope="module")
def model() -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32)


def test_published_evaluation_keeps_the_promise() -> None:
    published = json.loads((CHECKPOINT / "evaluation.json").read_text())
    tables = published["accuracy"]
    assert published["claimed_kinds"] == list(CLAIMED)
    assert tables.keys() == FAULTS.keys()
    assert tables["none"]["claimed"] >= MIN_ACCURACY
    for fault in DETECTED:
        assert tables[fault]["claimed"] <= tables["none"]["claimed"] - MIN_FALL


def test_the_page_shows_the_published_evaluation() -> None:
    tables = json.loads((CHECKPOINT / "evaluation.json").read_text())["accuracy"]
    assert markdown(tables) in (ROOT / "docs" / "tiny-model.md").read_text()


def test_accuracy_and_its_fall_measured_here(model: Qwen3VLForConditionalGeneration) -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    right = accuracy(model, tokenizer, per_kind=30)["claimed"]
    assert right >= MIN_ACCURACY
    for fault in DETECTED:
        assert accuracy(model, tokenizer, per_kind=30, fault=fault)["claimed"] <= right - MIN_FALL


def test_it_is_a_checkpoint_like_any_other() -> None:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
    assert type(model) is Qwen3VLForConditionalGeneration
    assert 4e6 < sum(p.numel() for p in model.parameters()) < 5e6
    assert type(load_processor(CHECKPOINT)).__name__ == "Qwen3VLProcessor"
    assert sum(f.stat().st_size for f in CHECKPOINT.iterdir()) <= 16e6


def test_tokenizer_is_reproduced() -> None:
    assert build_tokenizer().to_str() == Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json")).to_str()


def test_no_id_is_qwens_own() -> None:
    """Whatever hard-codes 151655 must fail here."""
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["image_token_id"] < 1000 > config["video_token_id"]


def test_training_runs_and_packages(tmp_path: Path) -> None:
    from dataclasses import replace

    from tiny_model.package import package
    from tiny_model.train import PHASES, Trainer

    trainer = Trainer(tmp_path / "run", seed=0)
    trainer.train_tower(2, lr=2e-3, muon_lr=1.2e-2, count=4)
    for phase in PHASES:
        trainer.train_all(replace(phase, steps=2), count=4)
    package(tmp_path / "run", tmp_path / "packed")
    assert {f.name for f in (tmp_path / "packed").iterdir()} | {"evaluation.json"} == {
        f.name for f in CHECKPOINT.iterdir()
    }
    Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "packed")
