"""Embedding models on the device alone: vectors are those of transformers' get_image_features and get_text_features."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from tokenizers import processors

from contract.errors import BundleError, InvalidInput, MediaError, ParityError
from contract.manifest import TOKENIZER
from edge_runtime import Embedder, Encoder
from edge_runtime.__main__ import main
from edge_runtime.items.tiles import fitting_size
from edge_runtime.vector_store import VectorStore
from edge_runtime.vectors import cosines
from export.families import clip, siglip2
from export.vision import export_vision, plan_vision
from tests.conftest import ROOT
from tests.families.models import ALL, CLIP, IDS, SIGLIP, fast_tokenizer, loud, picture

SIZES = [
    (56, 56),
    (90, 60),
    (60, 90),
    (300, 60),
    (60, 300),
    (37, 53),
    (1, 40),
    (40, 1),
    (55, 57),
    (224, 224),
    (640, 427),
]
SIZES += [(28, 28), (100, 99), (111, 222), (57, 56), (56, 57), (13, 7), (500, 333), (333, 500), (64, 512), (800, 600)]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}
TEXTS = ["a", "a photo of a cat", "Two DOGS!", "naïve café", "x" * 30]


def _clip(eos: int) -> tuple[Any, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    text = TEXT | {"max_position_embeddings": 80, "eos_token_id": eos, "bos_token_id": 1, "pad_token_id": 3}
    config = tf.CLIPConfig(text_config=text, vision_config=CLIP, projection_dim=32)
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    return config, images


def _siglip() -> tuple[Any, Any]:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    config = tf.SiglipConfig(text_config=TEXT | {"max_position_embeddings": 80}, vision_config=SIGLIP)
    return config, SiglipImageProcessorPil(size={"height": 60, "width": 60})


def _siglip2() -> tuple[Any, Any]:
    """A table of 5 x 5 places and up to 40 patches of a picture: places are merged and spread."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    vision = {name: value for name, value in SIGLIP.items() if name != "image_size"} | {"num_patches": 25}
    config = tf.Siglip2Config(text_config=TEXT | {"max_position_embeddings": 80}, vision_config=vision)
    return config, Siglip2ImageProcessorPil(patch_size=14, max_num_patches=40)


MAKERS = {"clip": lambda: _clip(IDS["</s>"]), "siglip": _siglip, "siglip2": _siglip2}
FILL = ("siglip", "siglip2")  # their text towers see texts of one length


def write(kind: str, folder: Path) -> Path:
    """A checkpoint with random weights that matter."""
    config, images = MAKERS[kind]()
    loud(tf.AutoModel.from_config(config)).save_pretrained(folder)
    images.save_pretrained(folder)
    tokenizer = fast_tokenizer(adds_bos=True)
    tokenizer.padding_side = "left" if kind == "siglip2" else "right"  # as transformers' Siglip2Tokenizer has it
    around = ("<s> $A </s>", "<s> $A </s> $B </s>") if kind == "clip" else ("$A </s>", "$A </s> $B </s>")
    marks = [("<s>", IDS["<s>"]), ("</s>", IDS["</s>"])]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(*around, marks)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Made:
    """A checkpoint, its bundle, and transformers' model of it."""

    model: Path
    bundle: Path
    embedder: Embedder
    whole: Any
    processor: Any
    tokenizer: Any


@pytest.fixture(scope="module", params=MAKERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    model, bundle = write(request.param, folder / "model"), folder / "bundle"
    export_vision(str(model), bundle)
    whole = tf.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    if request.param == "siglip2":
        siglip2.mend_columns(whole)
    processor = tf.AutoImageProcessor.from_pretrained(model, backend="pil")
    return Made(model, bundle, Embedder.from_bundle(bundle), whole, processor, tf.AutoTokenizer.from_pretrained(model))


def their_pictures(made: Made, pictures: list[Any]) -> Any:
    """All pictures in one batch: SigLIP 2's are padded and masked there."""
    values = made.processor(images=pictures, return_tensors="pt")
    with torch.inference_mode():
        return made.whole.get_image_features(**values).pooler_output.numpy()


def their_texts(made: Made, texts: list[str]) -> Any:
    fills = made.embedder.manifest.family in FILL
    padding = {"padding": "max_length", "max_length": 80} if fills else {"padding": True}
    ids = made.tokenizer(texts, return_tensors="pt", **padding)["input_ids"]
    with torch.inference_mode():
        return made.whole.get_text_features(input_ids=ids).pooler_output.numpy()


def test_vectors_are_those_of_transformers(made: Made) -> None:
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    ours, theirs = made.embedder.pictures(pictures), their_pictures(made, pictures)
    assert ours.shape == theirs.shape == (len(SIZES), made.embedder.manifest.width)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.sqrt(np.mean(theirs**2))
    ours, theirs = made.embedder.texts(TEXTS), their_texts(made, TEXTS)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.sqrt(np.mean(theirs**2))
    assert np.abs(cosines(ours, ours) - np.eye(len(TEXTS))).min(1).max() < 0.999  # the texts differ


def test_the_block_of_the_families_page(made: Made, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "families.md").read_text(), re.DOTALL)
    (tmp_path / "embedder").symlink_to(made.bundle)
    picture(90, 60).save(tmp_path / "one.jpg")
    run = [sys.executable, "-c", block]
    done = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    with Image.open(tmp_path / "one.jpg") as drawn:
        pictures = torch.from_numpy(their_pictures(made, [drawn]))
    texts = torch.from_numpy(their_texts(made, ["a cat", "a dog"]))
    cosine = torch.nn.functional.cosine_similarity(pictures[:, None], texts[None], dim=-1)  # (1, 2)
    manifest = made.embedder.manifest
    expected = cosine.numpy() * manifest.logit_scale + manifest.logit_bias
    found = np.array([float(word) for word in done.stdout.replace("[", " ").replace("]", " ").split()])
    assert np.allclose(found, expected[0], atol=1e-2)


def test_alone_and_together_they_are_the_same(made: Made) -> None:
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES)]  # more than a batch
    alone = np.concatenate([made.embedder.pictures([one]) for one in pictures])
    assert np.allclose(alone, made.embedder.pictures(pictures), atol=1e-5)
    alone = np.concatenate([made.embedder.texts([one]) for one in TEXTS])
    assert np.allclose(alone, made.embedder.texts(TEXTS), atol=1e-5)
    assert made.embedder.pictures([]).shape == made.embedder.texts([]).shape == (0, made.embedder.manifest.width)


def test_a_picture_of_any_ratio_keeps_its_grid(made: Made) -> None:
    """By transformers' own rule, up to the most patches; other families have one size."""
    if made.embedder.manifest.tiles.max_patches is None:
        assert len({made.embedder.item(picture(*size)).grid_thw for size in SIZES}) == 1
        return
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    for width, height, most in [(1, 1, 1), (1, 200, 256), (5000, 3000, 256), (640, 427, 1024), (427, 640, 7)]:
        found = fitting_size(height, width, 16, most)
        assert found == get_image_size_for_max_num_patches(height, width, 16, most)
    grids = {made.embedder.item(picture(*size)).grid_thw for size in SIZES}
    assert len(grids) > 8
    assert max(height * width for _, height, width in grids) <= 40


@pytest.mark.parametrize("wrong", ["table", "antialias"])
def test_another_table_of_positions_misses_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Rows and columns swapped, and a resize without antialiasing: both are near enough to look right."""
    if wrong == "table":
        positions = siglip2._positions

        def swapped(graph: Any, tower: Any, read: Any, group: Any) -> str:
            return positions(graph, tower, read, replace(group, height=group.width, width=group.height))

        monkeypatch.setattr(siglip2, "_positions", swapped)
    else:
        weights = siglip2._weights

        def sharp(graph: Any, side: int, size: str) -> str:
            op = graph.op

            def at_most_one(name: str, inputs: list[str], *rest: Any, **given: Any) -> str:
                return op("Min" if name == "Max" else name, inputs, *rest, **given)

            with monkeypatch.context() as patch:
                patch.setattr(graph, "op", at_most_one)
                return weights(graph, side, size)

        monkeypatch.setattr(siglip2, "_weights", sharp)
    with pytest.raises(ParityError):
        export_vision(str(write("siglip2", tmp_path / "model")), tmp_path / "bundle")


def test_scores_are_the_models_logits(made: Made) -> None:
    pictures = [picture(90, 60, 1), picture(60, 90, 2)]
    values = made.processor(images=pictures, return_tensors="pt")
    ids = torch.from_numpy(made.embedder.token_ids(TEXTS))
    with torch.inference_mode():
        theirs = made.whole(input_ids=ids, **values).logits_per_image.numpy()
    ours = made.embedder.scores(made.embedder.pictures(pictures), made.embedder.texts(TEXTS))
    assert np.allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"] if ALL else ["int8"])
def test_every_precision_keeps_its_gate(made: Made, precision: str, tmp_path: Path) -> None:
    """A bundle is published and near transformers, or refused by its gate and not there."""
    out = tmp_path / "bundle"
    try:
        export_vision(str(made.model), out, precision)
    except ParityError:
        assert precision != "fp16"
        assert not out.exists()
        return
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    embedder = Embedder.from_bundle(out)
    least = {"fp16": 0.9999, "int8": 0.99, "int4": 0.85}[precision]
    assert cosines(embedder.pictures(pictures), their_pictures(made, pictures)).diagonal().min() >= least
    assert cosines(embedder.texts(TEXTS), their_texts(made, TEXTS)).diagonal().min() >= least


def test_the_command_writes_vectors_and_a_table(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, file in enumerate(files):
        picture(90, 60, seed).save(file)
    asked = ["embed", *map(str, files), "--text", *TEXTS, "--bundle", str(made.bundle)]
    assert main([*asked, "--out", str(tmp_path / "v.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = np.load(tmp_path / "v.npz")
    assert np.array_equal(found["image_embeds"], made.embedder.pictures(files))
    assert np.array_equal(found["text_embeds"], made.embedder.texts(TEXTS))
    assert np.allclose(told["cosines"], found["cosines"])
    assert main([*asked, "--out", str(tmp_path / "v.safetensors")]) == 0
    assert "a photo of a cat" in capsys.readouterr().out
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(tmp_path / "v.safetensors")["cosines"], found["cosines"])


def test_the_command_fills_a_store(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two calls, one file: its nearest are those of numpy. A file of another kind is refused before the tower runs."""
    files = [str(tmp_path / f"{seed}.png") for seed in range(3)]
    for seed, file in enumerate(files):
        picture(90, 60, seed).save(file)
    where, store = ["--bundle", str(made.bundle), "--out"], tmp_path / "pictures.db"
    assert main(["embed", *files[:2], "--text", "a", *where, str(store)]) == 0
    assert main(["embed", files[2], *where, str(store)]) == 0
    (vector,) = made.embedder.texts(["a photo of a cat"])
    table = cosines(vector[None], made.embedder.pictures(files))[0]
    with VectorStore(store) as opened:
        found = opened.nearest(vector)
        assert opened.names("text") == ["a"]
    assert [name for name, _ in found] == [files[place] for place in np.argsort(-table)]
    assert np.allclose([cosine for _, cosine in found], np.sort(table)[::-1], atol=1e-5)
    (tmp_path / "text.db").write_text("no database " * 400)
    assert main(["embed", files[0], *where, str(tmp_path / "text.db")]) == 2
    assert "cannot be used as a vector store" in capsys.readouterr().err
    assert main(["embed", files[0], *where, str(tmp_path / "nowhere" / "new.db")]) == 2
    assert "new.db cannot be written" in capsys.readouterr().err
    assert main(["embed", str(tmp_path / "text.db"), *where, str(tmp_path / "new.db")]) == 2
    assert "text.db cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "new.db").exists()  # a failure leaves no empty store


def test_the_device_needs_no_torch(made: Made, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'torchvision')))\n"
        "from edge_runtime.__main__ import main\n"
        f"sys.exit(main(['embed', '--text', 'a cat', '--bundle', {str(made.bundle)!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["width"] == made.embedder.manifest.width


def test_what_cannot_be_embedded_is_refused(
    made: Made, tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match=r"texts\[1\] has 10\d tokens, up to 80 are allowed"):
        made.embedder.texts(["a", "y" * 100])
    with pytest.raises(InvalidInput, match=r"texts\[0\] is bytes, a text is expected"):
        made.embedder.texts([b"a"])  # type: ignore[list-item]
    with pytest.raises(MediaError, match="cannot be read"):
        made.embedder.pictures([b"nothing"])
    with pytest.raises(MediaError, match="aspect ratio"):
        made.embedder.pictures([picture(3000, 3)])
    with pytest.raises(BundleError, match="no bundle of an embedding model"):
        Embedder.from_bundle(bundle_folder)
    with pytest.raises(BundleError, match="is no edge bundle"):
        Encoder.from_bundle(made.bundle)
    damaged = Path(shutil.copytree(made.bundle, tmp_path / "damaged"))
    with (damaged / "text.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"text\.onnx has BLAKE3"):
        Embedder.from_bundle(damaged)
    assert main(["embed", "--bundle", str(made.bundle)]) == 2
    assert "nothing was given" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vision.onnx.data", "text.onnx.data"])
def test_weights_that_the_manifest_does_not_name_are_refused(made: Made, tmp_path: Path, name: str) -> None:
    copied = Path(shutil.copytree(made.bundle, tmp_path / "copied"))
    (copied / name).touch()
    path = copied / "embedder.json"
    values = json.loads(path.read_text())
    values["files"].pop(name, None)
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=f"files has no '{name}'"):
        Embedder.from_bundle(copied)


def test_tokens_that_the_device_writes_otherwise_stop_the_export(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer that the device would read otherwise is found before anything is published."""
    from export import embedder

    def changed(folder: Path, work: Path) -> Any:
        tokenizer = tf.AutoTokenizer.from_pretrained(folder)
        values = json.loads(tokenizer.backend_tokenizer.to_str())
        values["normalizer"] = {"type": "Prepend", "prepend": "z"}
        (work / TOKENIZER).write_text(json.dumps(values))
        return tokenizer

    monkeypatch.setattr(embedder, "_save_tokenizer", changed)
    with pytest.raises(ParityError, match="token ids of 'a' differ"):
        export_vision(str(made.model), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_plan_reads_no_weights(made: Made, tmp_path: Path) -> None:
    assert plan_vision(str(made.model), tmp_path / "bundle").parameters > 0
    assert not (tmp_path / "bundle").exists()


def test_an_old_end_token_means_the_highest_number() -> None:
    """As transformers reads configs from before 2023: their eos_token_id is 2, which is another token."""
    assert clip.texts(_clip(2)[0]).end_id == -1
    assert clip.texts(_clip(7)[0]).end_id == 7
