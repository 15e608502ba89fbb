"""--adapter: both exports of a LoRA give what PEFT's merge_and_unload gives, and refuse what a sum of matrices does not say."""

import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from contract.errors import BundleError
from edge_runtime.__main__ import main as edge
from export.families import local_name
from export.language import export_language
from export.language import main as language_main
from export.progress import Progress
from export.source.adapter import Adapter
from export.source.checkpoint import Checkpoint
from export.vision import export_vision, plan_vision
from tests.conftest import ROOT
from tests.export.peft_adapter import CASES
from tests.export.tiny_checkpoint import change_json, write_checkpoint

PEFT = ROOT / ".cache" / "peft"
ULP = 2.0**-7  # of bfloat16


@pytest.fixture(scope="module")
def adapters(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters, and what PEFT makes of each."""
    folder = tmp_path_factory.mktemp("adapters")
    done = subprocess.run(
        [sys.executable, "-m", "tests.export.peft_adapter", checkpoint, folder],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(PEFT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def values(model: Checkpoint) -> dict[str, np.ndarray]:
    return {
        name: tensor.float32() for file in model.shards for name, tensor in model.tensors(file).items()
    }  # float32 (shape of the tensor)


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_pefts(adapters: Path, checkpoint: Path, name: str) -> None:
    ours, base = values(Checkpoint(checkpoint, Adapter(adapters / name))), values(Checkpoint(checkpoint))
    theirs = load_file(adapters / f"{name}.safetensors")
    assert ours.keys() == theirs.keys()
    changed = 0
    for key, expected in theirs.items():
        assert expected.dtype == torch.bfloat16
        wide = expected.float().numpy()
        changed += not np.array_equal(wide, base[key])
        assert (ours[key] == wide).mean() > 0.999, key  # a sum in float64 may round a tie the other way
        np.testing.assert_allclose(ours[key], wide, rtol=ULP)
    facts = Checkpoint(checkpoint, Adapter(adapters / name)).adapter_facts
    assert changed == facts["layers"] > 3
    touched = {key for key in theirs if not np.array_equal(theirs[key].float().numpy(), base[key])}
    assert facts["layers_of_the_tower"] == sum(local_name(key) is not None for key in touched)


@pytest.mark.usefixtures("few_packs")
def test_both_exports_merge_it(
    adapters: Path, sharded: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From shards under other names, too: what is written is the merged model, and its encoder is another one."""
    screen, adapter = StringIO(), adapters / "patterns"
    edge_bundle = export_vision(str(sharded), tmp_path / "edge", progress=Progress(screen), adapter=adapter)
    assert language_main([str(sharded), str(tmp_path / "language"), "--adapter", str(adapter)]) == 0
    assert "adapter     patterns, rank 4 of " in screen.getvalue()
    assert "warning" not in screen.getvalue() + capsys.readouterr().out
    theirs = load_file(adapters / "patterns.safetensors")
    written = {}
    for file in sorted((tmp_path / "language").glob("*.safetensors")):
        written |= load_file(file)
    assert written.keys() == {name for name in theirs if local_name(name) is None}
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=ULP, atol=0)
    assert edge_bundle.fingerprint == Checkpoint(checkpoint, Adapter(adapter)).fingerprint
    assert edge_bundle.fingerprint != Checkpoint(checkpoint).fingerprint

    assert edge(["inspect", "--bundle", str(tmp_path / "edge"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])["bundle"]["adapter"]
    assert (shown["name"], shown["rank"]) == ("patterns", 4)
    assert 0 < shown["layers_of_the_tower"] < shown["layers"]
    assert len(shown["sha256"]) == 64


def test_an_adapter_of_the_language_leaves_the_encoder(adapters: Path, checkpoint: Path) -> None:
    merged = Checkpoint(checkpoint, Adapter(adapters / "language"))
    assert merged.fingerprint == Checkpoint(checkpoint).fingerprint
    assert merged.adapter_facts["layers_of_the_tower"] == 0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora is True"),
    "biases": ({"bias": "all"}, "bias is 'all'"),
    "biases of the factors": ({"lora_bias": True}, "lora_bias is True"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    "parameters": ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters is"),
    "new tokens": ({"trainable_token_indices": [3]}, "trainable_token_indices is"),
    "copied layers": ({"layer_replication": [[0, 2]]}, "layer_replication is"),
    "an answer's adapter": ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is"),
    "another method": ({"peft_type": "IA3"}, "peft_type is 'IA3', LORA is merged here"),
    "another beginning": (
        {"init_lora_weights": "pissa"},
        "init_lora_weights is 'pissa', PEFT changes the base weights",
    ),
    "transposed layers": ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    "a key of a later PEFT": ({"use_something": 1}, "use_something is 1"),
    "another rank": ({"r": 5}, "has rank 4 in adapter_model.safetensors, adapter_config.json says 5"),
    "no rank": ({"r": "8"}, "r is '8', a rank is expected"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_merge_follows_is_refused_by_name(
    adapters: Path, checkpoint: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = Path(shutil.copytree(adapters / "language", tmp_path / "adapter"))
    change_json(adapter / "adapter_config.json", **changes)
    for export in (plan_vision, export_language):
        with pytest.raises(BundleError, match=message):
            export(str(checkpoint), tmp_path / "out", adapter=adapter)
    assert not (tmp_path / "out").exists()


def test_tensors_that_do_not_fit_are_named(adapters: Path, checkpoint: Path, tmp_path: Path) -> None:
    wrapped = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    weights = load_file(adapters / "language" / "adapter_model.safetensors")
    for number, (changed, message) in enumerate(
        (
            ({f"{wrapped}.lora_magnitude_vector": torch.ones(4)}, "holds .*lora_magnitude_vector"),
            ({f"{wrapped}.lora_B.weight": None}, "q_proj' has lora_A.weight alone"),
            ({f"{wrapped}.lora_A.weight": torch.ones(4, 7)}, r"factors \[64, 4\] and \[4, 7\], the checkpoint's"),
            (
                {f"{wrapped}x.lora_{f}.weight": torch.ones(4, 4) for f in "AB"},
                "q_projx', which the checkpoint does not",
            ),
        )
    ):
        adapter = Path(shutil.copytree(adapters / "language", tmp_path / str(number)))
        found = {name: value for name, value in (weights | changed).items() if value is not None}
        save_file(found, adapter / "adapter_model.safetensors")
        with pytest.raises(BundleError, match=message):
            export_language(str(checkpoint), tmp_path / "out", adapter=adapter)


def test_an_adapter_is_no_model_and_a_model_no_adapter(adapters: Path, checkpoint: Path, tmp_path: Path) -> None:
    for export in (plan_vision, export_language):
        with pytest.raises(
            BundleError, match=r"is an adapter alone .*rank 4, of .*give its base model as MODEL and this"
        ):
            export(str(adapters / "language"), tmp_path / "out")
        with pytest.raises(
            BundleError, match=r"adapter_config\.json cannot be read: --adapter wants a folder that PEFT"
        ):
            export(str(checkpoint), tmp_path / "out", adapter=checkpoint)


def test_quantised_layers_take_none(adapters: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        BundleError, match=r"q_proj.weight', which is F8_E4M3: an adapter is merged into the model before"
    ):
        export_language(str(model), tmp_path / "out", adapter=adapters / "language")
