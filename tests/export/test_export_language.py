"""The language checkpoint: everything but the tower, byte for byte, and the mark that names the encoder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import Qwen3VLForConditionalGeneration

from contract.errors import BundleError
from contract.language import read_language_card
from export.families import local_name as tower_name
from export.language import export_language, main
from export.source.checkpoint import Checkpoint
from tests.export.tiny_checkpoint import write_checkpoint


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


@pytest.fixture
def language(checkpoint: Path, tmp_path: Path) -> Path:
    export_language(str(checkpoint), tmp_path / "language")
    return tmp_path / "language"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and a[name].equal(b[name]) for name in a)


def test_all_but_the_tower_is_identical(checkpoint: Path, language: Path) -> None:
    kept = {name: tensor for name, tensor in tensors(checkpoint).items() if tower_name(name) is None}
    assert len(kept) > 20
    assert same(tensors(language), kept)
    for name in ("config.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json"):
        assert (language / name).read_bytes() == (checkpoint / name).read_bytes()
    assert {path.name for path in language.iterdir()} == {path.name for path in checkpoint.iterdir()} | {
        "edge_vlm.json"
    }


def test_sharded_stays_sharded(sharded: Path, tmp_path: Path) -> None:
    result = export_language(str(sharded), tmp_path / "language")
    index = json.loads((tmp_path / "language" / "model.safetensors.index.json").read_text())
    found = tensors(tmp_path / "language")
    assert set(index["weight_map"]) == set(found)
    assert len(set(index["weight_map"].values())) == 3
    assert index["metadata"]["total_size"] == result.bytes == sum(t.nbytes for t in found.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "language" / file, "pt") as handle:
            assert name in handle.keys()  # noqa: SIM118
    assert same(found, {name: t for name, t in tensors(sharded).items() if tower_name(name) is None})


def test_a_shard_of_the_tower_alone_leaves_none(sharded: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sharded, tmp_path / "model"))
    path = model / "model.safetensors.index.json"
    places = json.loads(path.read_text())["weight_map"]
    files = sorted(set(places.values()))
    from safetensors.torch import save_file

    weights = tensors(model)
    places = {name: files[0] if tower_name(name) is not None else files[1] for name in weights}
    for file in files[:2]:
        save_file({n: t for n, t in weights.items() if places[n] == file}, model / file, {"format": "pt"})
    (model / files[2]).unlink()
    path.write_text(json.dumps({"weight_map": places}))
    export_language(str(model), tmp_path / "language")
    assert [p.name for p in (tmp_path / "language").glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert Checkpoint(model).fingerprint == Checkpoint(sharded).fingerprint


def test_transformers_loads_it_and_answers_the_same(checkpoint: Path, language: Path) -> None:
    ids = torch.arange(2, 30)[None]
    with torch.inference_mode():
        full, stripped = (
            Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)(input_ids=ids).logits
            for folder in (checkpoint, language)
        )
    assert full.isfinite().all()
    assert full.std() > 0.1
    assert stripped.equal(full)


def test_one_fingerprint(checkpoint: Path, sharded: Path, no_levels: Path, language: Path, tmp_path: Path) -> None:
    card = read_language_card(language)
    assert card.encoder_fingerprint == Checkpoint(checkpoint).card.encoder_fingerprint
    assert card == Checkpoint(checkpoint).card
    assert Checkpoint(sharded).fingerprint == card.encoder_fingerprint  # layout and prefix do not matter
    assert Checkpoint(no_levels).fingerprint != card.encoder_fingerprint
    other = write_checkpoint(tmp_path / "fp32", dtype=torch.float32)  # the same numbers before rounding
    assert Checkpoint(other).fingerprint != card.encoder_fingerprint
    budget = Path(shutil.copytree(checkpoint, tmp_path / "budget"))
    processor = json.loads((budget / "preprocessor_config.json").read_text())
    processor["size"]["longest_edge"] += 1
    (budget / "preprocessor_config.json").write_text(json.dumps(processor))
    assert Checkpoint(budget).fingerprint != card.encoder_fingerprint


def test_a_language_checkpoint_has_no_tower_to_export(language: Path, tmp_path: Path) -> None:
    from export.vision import export_vision

    for export in (export_vision, export_language):
        with pytest.raises(BundleError, match=r"no vision tower.*language checkpoint already \(edge_vlm.json"):
            export(str(language), tmp_path / "again")


def test_command_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(checkpoint), str(tmp_path / "language"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["fingerprint"] == read_language_card(tmp_path / "language").encoder_fingerprint
    assert main([str(checkpoint), str(tmp_path / "language")]) == 0  # an earlier export is replaced
    assert main([str(checkpoint), str(tmp_path)]) == 2
    assert "a folder without edge_vlm.json" in capsys.readouterr().err
