"""The tokenizer of a bundle is transformers' own, also where transformers reads tokenizer.json otherwise than tokenizers."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import AutoTokenizer

from contract.errors import BundleError
from export import extra
from export.language import export_language
from export.progress import Progress
from export.source.tokenizer import write_tokenizer
from tests.conftest import CHECKPOINT
from tests.export.layouts import READ, build
from tests.export.tiny_checkpoint import write_json

TEXTS = [
    "<image>\nWhich shape?", " <image> a", "a <image>b", "", " ", "  two", "<s>a", "USER: <image>\nHm? ASSISTANT:", "é 漢",
    "A Star", "a\nb", "</s> x", "\t1 2",
]  # fmt: skip


def llama(folder: Path) -> Path:
    """A tokenizer.json as Llama's families have it: a blank before the text by a normaliser, bytes for what is unknown."""
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(special_tokens=special, vocab_size=320, show_progress=False)
    tokenizer.train_from_iterator(["Which shape is it? A star. USER: ASSISTANT: a b"] * 4, trainer)
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = values["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **tokens})
    return folder


def lower_case(folder: Path) -> Path:
    """A Qwen2Tokenizer whose file has another normaliser, which transformers does not keep."""
    return build(READ["a normaliser of its own"], folder)


@pytest.mark.parametrize("make", [llama, lower_case])
def test_it_is_transformers_own(tmp_path: Path, make: object) -> None:
    folder = make(tmp_path / "model")  # type: ignore[operator]
    assert write_tokenizer(folder, tmp_path / "tokenizer.json") == ""
    theirs = AutoTokenizer.from_pretrained(folder)
    ours, stored = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (tmp_path, folder))
    for adds in (True, False):
        expected = [theirs(text, add_special_tokens=adds).input_ids for text in TEXTS]
        assert [ours.encode(text, add_special_tokens=adds).ids for text in TEXTS] == expected
    assert [stored.encode(text, add_special_tokens=False).ids for text in TEXTS] != expected
    assert ours.get_vocab(with_added_tokens=True) == theirs.get_vocab()


def test_a_file_that_means_the_same_keeps_its_bytes(tmp_path: Path) -> None:
    assert write_tokenizer(CHECKPOINT, tmp_path / "tokenizer.json") == ""
    assert (tmp_path / "tokenizer.json").read_bytes() == (CHECKPOINT / "tokenizer.json").read_bytes()


def test_without_transformers_it_is_copied_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    screen = StringIO()
    export_language(str(CHECKPOINT), tmp_path / "language", Progress(screen))
    assert "warning     tokenizer.json is copied as it is: transformers" in screen.getvalue()


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(BundleError, match="transformers cannot load the tokenizer"):
        write_tokenizer(tmp_path / "model", tmp_path / "tokenizer.json")
