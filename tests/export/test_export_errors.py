"""Every way a checkpoint or a target can be wrong gives one typed error that names what is wrong."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contract.errors import BundleError, InvalidInput, MissingExtra
from export.language import export_language
from export.source.checkpoint import Checkpoint
from export.source.hub import local_folder
from export.vision import export_vision
from tests.export.tiny_checkpoint import PROCESSOR, change_json, write_json

pytestmark = pytest.mark.usefixtures("few_packs")


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


def change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ],
)
def test_a_missing_file(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).unlink()
    for export in (export_vision, export_language):
        with pytest.raises(BundleError, match=name):
            export(str(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_json_object(model: Path, tmp_path: Path, name: str, text: str) -> None:
    (model / name).write_text(text)
    with pytest.raises(BundleError, match=name):
        export_vision(str(model), tmp_path / "out")


NAME = "model.visual.blocks.1.mlp.linear_fc1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NAME), r"'blocks.1.mlp.linear_fc1.bias' is missing, config.json asks for \[144\]"),
        (lambda w: w.update({NAME: torch.zeros(7)}), r"'blocks.1.mlp.linear_fc1.bias' has shape \[7\].*\[144\]"),
        (lambda w: w.update({"model.visual.extra": torch.zeros(7)}), "'extra' is unknown"),
        (lambda w: w.update({NAME.removeprefix("model."): torch.zeros(144)}), "stands twice"),
        (lambda w: w.update({NAME: torch.zeros(144, dtype=torch.int8)}), "is I8, BF16"),
    ],
)
def test_a_wrong_tensor(model: Path, tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    change_weights(model, change)
    with pytest.raises(BundleError, match=message):
        export_vision(str(model), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen9_vl"}, "'qwen9_vl', supported are qwen3_vl, qwen3_vl_moe, qwen2_vl"),
        ({"vision_config__depth": None}, "no key 'depth'"),
        ({"vision_config__hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"vision_config__num_position_embeddings": 577}, "num_position_embeddings is 577"),
        ({"vision_config__deepstack_visual_indexes": [0, 0, 9]}, "different blocks from 0 to 3"),
        ({"vision_config__num_heads": 5}, "5 heads"),
        ({"vision_config__patch_size": 14}, "patch_embed.proj.weight"),
        ({"vision_config__temporal_patch_size": 1}, "temporal_patch_size is 1"),
        ({"vision_config__out_hidden_size": 32}, "tower tensor"),
        ({"text_config__hidden_size": 32}, "they must be equal"),
        ({"vision_config__rope_parameters": {"rope_type": "linear"}}, "rope_type is 'linear'"),
    ],
)
def test_a_config_the_graph_does_not_compute(
    model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    change_json(model / "config.json", **changes)
    with pytest.raises(BundleError, match=message):
        export_vision(str(model), tmp_path / "out")


def test_a_pipe_is_no_file(checkpoint: Path, tmp_path: Path) -> None:
    """Nobody ever writes to it: who opened it to read would wait for ever, so a process of its own tries each."""
    names = ["config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json"]
    models = [Path(shutil.copytree(checkpoint, tmp_path / name)) for name in names]
    for model in models:
        (model / model.name).unlink(missing_ok=True)
        os.mkfifo(model / model.name)
    run = "import sys; from export.language import main; print(*[main([model, sys.argv[1]]) for model in sys.argv[2:]])"
    done = subprocess.run(
        [sys.executable, "-c", run, tmp_path / "out", *models], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[-1] == "2 2 2 2", done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for model, error in zip(models, errors, strict=True):
        assert model.name in error.replace(str(model), "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_pipe_as_an_adapters_config(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    os.mkfifo(adapter / "adapter_config.json")
    with pytest.raises(BundleError, match=r"adapter_config\.json cannot be read"):
        export_language(str(model), tmp_path / "out", adapter=adapter)


@pytest.mark.parametrize("ends", ["a", [], [1, "a"], -1, [1, 10**9], True, 1.5, {"a": 1}, [[1]], 10**400])
def test_end_tokens_that_end_nothing(model: Path, tmp_path: Path, ends: Any) -> None:
    write_json(model / "generation_config.json", {"eos_token_id": ends})
    with pytest.raises(BundleError, match=r"generation_config\.json: eos_token_id is .*no answer would end"):
        export_language(str(model), tmp_path / "out")
    (model / "generation_config.json").unlink()
    change_json(model / "config.json", text_config__eos_token_id=ends)
    with pytest.raises(BundleError, match=r"config\.json: eos_token_id is"):
        export_language(str(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_the_weights_do_not_have(model: Path, tmp_path: Path) -> None:
    change_json(model / "config.json", text_config__vocab_size=999_999)
    with pytest.raises(BundleError, match=r"config\.json: vocab_size is 999999, .*embed_tokens\.weight has \d+ rows"):
        export_language(str(model), tmp_path / "out")


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[3].content }}", "", "always this",
     "{{ range(10 ** 9) | list | length }}", "{{ ''.__class__.__mro__ }}", "{% include 'other' %}"],
)  # fmt: skip
def test_a_template_that_writes_no_turn(model: Path, tmp_path: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(BundleError, match="the chat template writes no turn of a user: "):
        export_language(str(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "template",
    ["{{ bos_token + messages[0].content }}", "{% for p in messages[0].content %}{{ p.text }}{{ eos_token + '' }}{% endfor %}"],
)  # fmt: skip
def test_a_template_of_text_or_of_parts(model: Path, tmp_path: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    export_language(str(model), tmp_path / "out")


def test_processors_of_another_patch_size(model: Path, tmp_path: Path) -> None:
    write_json(model / "video_preprocessor_config.json", PROCESSOR | {"patch_size": 14})
    for export in (export_vision, export_language):
        with pytest.raises(BundleError, match=r"video_preprocessor_config\.json: patch_size is 14"):
            export(str(model), tmp_path / "out")


def test_damaged_weights(model: Path, sharded: Path, tmp_path: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="cut short"):
        export_vision(str(model), tmp_path / "out")
    other = Path(shutil.copytree(sharded, tmp_path / "sharded"))
    (other / "model-00002-of-00003.safetensors").unlink()
    for export in (export_vision, export_language):
        with pytest.raises(BundleError, match=r"model-00002-of-00003\.safetensors is missing"):
            export(str(other), tmp_path / "out")
    index = other / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    write_json(index, {"weight_map": places | {"lm_head.weight": "../secret.safetensors"}})
    with pytest.raises(BundleError, match="only files of the folder"):
        export_language(str(other), tmp_path / "out")


def test_the_template_of_older_checkpoints(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(BundleError, match="no chat template"):
        _ = Checkpoint(model).chat_template
    change_json(model / "tokenizer_config.json", chat_template=[{"name": "default", "template": "named"}])
    assert Checkpoint(model).chat_template == "named"
    write_json(model / "chat_template.json", {"chat_template": "{{ text }}"})
    assert Checkpoint(model).chat_template == "{{ text }}"


def test_targets_that_must_not_be_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter").write_text("mine")
    for export in (export_vision, export_language):
        for out in (model, model / "edge", tmp_path):
            with pytest.raises(InvalidInput, match="must not contain"):
                export(str(model), out)
        for out in (tmp_path / "file", tmp_path / "folder"):
            with pytest.raises(InvalidInput, match=out.name):
                export(str(model), out)
    assert (tmp_path / "folder" / "letter").read_text() == "mine"


def test_neither_folder_nor_hub_id() -> None:
    with pytest.raises(BundleError, match="a folder or a hub id of the form owner/name is expected"):
        local_folder("nowhere", lambda _: True)


def test_an_unknown_precision(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'fp8', fp32, fp16, bf16, int8, int4 can be exported"):
        export_vision(str(model), tmp_path / "out", "fp8")


@pytest.mark.parametrize("module", ["torch", "transformers", "onnx"])
def test_without_the_extra(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module} is not installed.*edge-vlm\[export\]"):
        export_vision(str(model), tmp_path / "out")


def test_a_hub_id_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match="huggingface_hub is not installed"):
        export_language("owner/name", tmp_path / "out")


def test_the_commands_start_without_the_extra(model: Path, tmp_path: Path) -> None:
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in ("torch", "transformers", "safetensors", "onnx"))

    def run(command: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; {block}; from export.{command} import main; sys.exit(main(sys.argv[1:]))"
        pictures = ["--pictures", str(tmp_path)] if command == "codec" else []
        arguments = [sys.executable, "-c", code, str(model), str(tmp_path / command), *pictures]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    for command in ("vision", "codec"):
        done = run(command)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: export.{command} (torch is not installed) needs an extra")
    assert run("language").returncode == 0  # files are copied, nothing is computed
    assert (tmp_path / "language" / "config.json").is_file()
