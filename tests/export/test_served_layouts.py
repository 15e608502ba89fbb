"""Layouts of the language model: what the server loads, and what it says at once of those that it does not."""

import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from contract.errors import BundleError
from contract.sampling import Sampling
from edge_runtime import Encoder, GrpcClient, Pipeline
from export.gate.processor import drawn
from export.language import export_language
from export.progress import Progress
from export.source.checkpoint import Checkpoint
from export.vision import export_vision, plan_vision
from serving.settings import Settings
from serving.tasks import served_tasks
from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.fp8_blocks import check_blocks
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tests.engine import settings
from tests.export.experts import LAYOUTS, write_experts
from tests.export.layouts import SINGLE, as_saved, build, endless, untied
from tests.export.quantised import METHODS, quantise, quantised
from tests.export.tiny_checkpoint import BUNDLED, change_json
from tests.processor import load_processor
from tests.serving.reference import Reference

pytestmark = pytest.mark.usefixtures("few_packs")


def test_the_tokenizers_end_ends_an_answer(tmp_path: Path) -> None:
    model = build(endless, tmp_path / "model")
    export_language(str(model), tmp_path / "language")
    assert load_language_model(tmp_path / "language").end_ids == {479}  # <|im_end|>


QUANTISED = {
    "fp8": r"is quantised with fp8: pip install accelerate, or serve it with --engine vllm",
    "bitsandbytes": r"with bitsandbytes: pip install accelerate bitsandbytes$",
    "compressed-tensors": r"with compressed-tensors: pip install compressed-tensors, or serve it with --engine vllm",
    "gptq": r"with gptq: pip install optimum gptqmodel, or serve it with --engine vllm",
    "awq": r"with awq: pip install accelerate gptqmodel, or serve it with --engine vllm",
    "modelopt": r"with modelopt, which transformers does not read: serve it with --engine vllm",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_language_model_exports_and_the_server_says_what_it_needs(tmp_path: Path, method: str) -> None:
    """The tower is a plain one, so its bundle is the original's; the server refuses before it starts anything."""
    model = build(quantised(method), tmp_path / "model")
    screen = StringIO()
    plan_vision(str(model), tmp_path / "edge", progress=Progress(screen))
    assert Checkpoint(model).fingerprint == Checkpoint(BUNDLED).fingerprint
    export_language(str(model), tmp_path / "language", Progress(screen))
    assert screen.getvalue().count(f"warning     the language model is quantised with {method}: the server") == 2
    assert (tmp_path / "language" / SINGLE).stat().st_size < (BUNDLED / SINGLE).stat().st_size
    with pytest.raises(BundleError, match=QUANTISED[method]):
        load_language_model(tmp_path / "language")
    with pytest.raises(BundleError, match=QUANTISED[method]):
        TritonServer(settings(tmp_path / "language")).start()
    if method == "bitsandbytes":
        on_vllm = replace(settings(tmp_path / "language"), engine="vllm")
        with pytest.raises(
            BundleError, match="with bitsandbytes, which vLLM does not read: pip install accelerate bits"
        ):
            TritonServer(on_vllm).start()


def test_a_method_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    """It would drop the scales, and say so in the log only."""
    export_language(str(build(quantised("fp8"), tmp_path / "model")), tmp_path / "language")
    change_json(tmp_path / "language" / "config.json", quantization_config__quant_method="newer")
    with pytest.raises(
        BundleError, match=r"with newer, which transformers 5\.\d+\.\d+ does not read: serve it with --engine"
    ):
        load_language_model(tmp_path / "language")


DEQUANTISED = """
import sys, torch, tests.processor
from pathlib import Path
from safetensors.torch import load_file
from serving.transformers_engine.checkpoint import load_language_model
found = load_language_model(Path(sys.argv[1]))
state = found.decoder.state_dict()
tensors = load_file(Path(sys.argv[1]) / "model.safetensors")
for name, stored in tensors.items():
    local = name.removeprefix("model.language_model.")
    if local in state:
        assert state[local].dtype == found.dtype == torch.float32, name
        expected, scales = stored.float(), tensors.get(f"{name}_scale_inv")
        if scales is not None:  # one for 128 x 128 values
            wide = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)
            expected = expected * wide[: expected.shape[0], : expected.shape[1]]
        assert torch.equal(state[local], expected), name
assert any(name.endswith("_scale_inv") for name in tensors)
assert found.decoder.layers[0].mlp(torch.ones(1, 3, found.card.hidden_size)).isfinite().all()
"""


def test_fp8_blocks_are_served_where_accelerate_is(tmp_path: Path) -> None:
    """Without a GPU transformers multiplies the blocks by their scales; all weights then have one dtype."""
    reference = Reference(tmp_path, is_wide=True)
    quantise(reference.language, "fp8")
    done = subprocess.run(
        [sys.executable, "-c", DEQUANTISED, reference.language],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT / '.cache' / 'peft'}:{ROOT}"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_fp8_blocks_that_do_not_fill_a_weight_are_refused(tmp_path: Path) -> None:
    """findings/fp8_blocks.sh: transformers spreads their scales evenly."""
    export_language(str(build(quantised("fp8"), tmp_path / "model")), tmp_path / "language")
    with pytest.raises(BundleError, match=r"has shape \[\d+, \d+\], blocks of \[128, 128\] do not fill it"):
        check_blocks(tmp_path / "language")


def test_an_embedding_model_has_the_task_of_one(tmp_path: Path) -> None:
    model = build(untied, tmp_path / "model")
    export_language(str(model), tmp_path / "language")
    assert load_language_model(tmp_path / "language").head is None
    assert served_tasks(Settings(str(tmp_path / "language"))) == ("embed",)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_load(tmp_path: Path, layout: str) -> None:
    """Fused tensors either way round, and one tensor an expert, which transformers 5.23 reads for other families only."""
    whole = write_experts(tmp_path / "model", layout)
    export_language(str(tmp_path / "model"), tmp_path / "language")
    loaded = load_language_model(tmp_path / "language", "fp32").decoder.state_dict()
    for name, expected in whole.model.language_model.state_dict().items():
        assert torch.equal(loaded[name], expected), name


def test_experts_are_served(tmp_path: Path) -> None:
    """One layout is enough: test_experts_load has the tensors of all, bit for bit."""
    whole = write_experts(tmp_path / "model", "as published")
    export_vision(str(tmp_path / "model"), tmp_path / "edge")
    export_language(str(tmp_path / "model"), tmp_path / "language")
    expected, found = answers(tmp_path, whole)
    assert found == expected
    assert len(set(found)) > 3


def test_a_newcomers_folder_is_served(tmp_path: Path) -> None:
    """processor_config.json, vocab.json and merges.txt, shards, generation tags and no generation_config.json at once:
    the real server answers as transformers does on the same folder."""
    model = build(as_saved, tmp_path / "model")
    export_vision(str(model), tmp_path / "edge")
    export_language(str(model), tmp_path / "language")
    whole = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    expected, found = answers(tmp_path, whole)
    end = load_processor(model).tokenizer.eos_token_id
    assert found in (expected, [token for token in expected if token != end])


def answers(folder: Path, whole: Any) -> tuple[list[int], list[int]]:
    """The tokens that transformers gives of folder/model, and those of the bundle and a real server over it."""
    picture = drawn(3, 128, 160)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe the image."}]
    messages = [{"role": "user", "content": content}]
    request = Pipeline(Encoder.from_bundle(folder / "edge", threads=1)).request(messages)
    assert np.isfinite(request.main).all()

    processor = load_processor(folder / "model")
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    assert request.input_ids.tolist() == inputs["input_ids"][0].tolist()
    end = processor.tokenizer.eos_token_id
    expected = whole.generate(**inputs, max_new_tokens=24, do_sample=False, eos_token_id=end)
    with TritonServer(settings(folder / "language", dtype="fp32")) as server, GrpcClient(server.grpc_url) as client:
        deltas = list(client.stream(request, Sampling(max_tokens=24)))
    return expected[0, inputs["input_ids"].shape[1] :].tolist(), [i for delta in deltas for i in delta.token_ids]
