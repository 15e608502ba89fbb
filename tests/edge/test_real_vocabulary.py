"""Token ids with Qwen's own vocabulary, beside the bundled model's small one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from contract import families
from contract.expansion import expand_pads
from tests.conftest import CHECKPOINT
from tests.qwen_vocabulary import qwen_tokenizer_json

IDS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(qwen_tokenizer_json())


def test_special_tokens_have_the_published_ids(tokenizer: Tokenizer) -> None:
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    assert {key: tokenizer.token_to_id(name) for key, name in names.items()} == IDS
    assert tokenizer.token_to_id("<|im_end|>") == 151645


@given(st.text(max_size=60))
@settings(max_examples=60, deadline=None)
def test_repeating_the_pad_as_text_or_as_id_is_the_same(tokenizer: Tokenizer, question: str) -> None:
    if "<|" in question:
        return
    config = json.loads((CHECKPOINT / "config.json").read_text()) | IDS
    config["text_config"]["vocab_size"] = 151936
    card = families.find(config["model_type"]).card(config, "f")
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    head, tail = "<|im_start|>user\n<|vision_start|>", f"<|vision_end|>{question}<|im_end|>\n"
    ids = np.array(encode(f"{head}<|image_pad|>{tail}"))
    grid = np.array([[1, 4, 6]])
    expanded = expand_pads(ids, grid, np.zeros((0, 3), np.int64), card)
    assert expanded.tolist() == encode(f"{head}{'<|image_pad|>' * 6}{tail}")


def test_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "tokenizer.json").write_text(qwen_tokenizer_json())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    oracle = AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("Hello wörld 你好 안녕 12345", "  two  spaces\n\n\ttab", "<|im_start|>user\nWhat's this?<|im_end|>"):
        assert ours.encode(text, add_special_tokens=False).ids == oracle(text)["input_ids"]
