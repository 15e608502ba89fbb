"""Layouts of the language model: what the server loads, and what it says at once of those that it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from contract.errors import BundleError
from contract.sampling import Sampling
from edge_runtime import Encoder, GrpcClient, Pipeline
from export.gate.processor import drawn
from export.language import export_language
from export.vision import export_vision
from serving.transformers_engine.checkpoint import load_language_model
from serving.triton.launcher import TritonServer
from tests.engine import settings
from tests.export.layouts import SINGLE, as_saved, build, endless, quantised, read, untied
from tests.export.tiny_checkpoint import write_json
from tests.processor import load_processor

pytestmark = pytest.mark.usefixtures("few_packs")


def test_the_tokenizers_end_ends_an_answer(tmp_path: Path) -> None:
    model = build(endless, tmp_path / "model")
    export_language(str(model), tmp_path / "language")
    assert load_language_model(tmp_path / "language").end_ids == {479}  # <|im_end|>


def test_fp8_needs_a_package_and_says_so(tmp_path: Path) -> None:
    model = build(quantised("fp8", weight_block_size=[128, 128], activation_scheme="dynamic"), tmp_path / "model")
    export_vision(str(model), tmp_path / "edge")
    export_language(str(model), tmp_path / "language")
    with pytest.raises(BundleError, match=r"quantised with fp8.*--engine vllm.*accelerate"):
        load_language_model(tmp_path / "language")


def test_an_embedding_model_is_called_one(tmp_path: Path) -> None:
    model = build(untied, tmp_path / "model")
    export_language(str(model), tmp_path / "language")
    with pytest.raises(BundleError, match="it is an embedding model, which answers no text"):
        load_language_model(tmp_path / "language")


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "one tensor an expert"])
def test_experts(tmp_path: Path, is_fused: bool) -> None:
    """The hub's fused tensors (as save_pretrained writes them) load; one tensor an expert, which transformers 5.23 does not
    load for this class, is refused by name."""
    from tests.export.tiny_checkpoint import write_checkpoint

    model = write_checkpoint(tmp_path / "model")
    config = read(model, "config.json")
    config |= {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]}
    config["text_config"] |= {
        "model_type": "qwen3_vl_moe_text", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    config["vision_config"]["model_type"] = "qwen3_vl_moe_vision"
    torch.manual_seed(5)
    whole = Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(**config)).eval()
    whole.save_pretrained(model)
    write_json(model / "config.json", config)
    if not is_fused:
        weights = {}
        for name, tensor in load_file(model / SINGLE).items():
            if name.endswith("experts.gate_up_proj"):
                for expert, both in enumerate(whole.get_parameter(name).detach()):
                    gate, up = both.chunk(2, 0 if both.shape[-1] == 48 else 1)
                    for kind, value in (("gate", gate), ("up", up)):
                        weights[name.replace("gate_up_proj", f"{expert}.{kind}_proj.weight")] = value.contiguous()
            elif name.endswith("experts.down_proj"):
                for expert, value in enumerate(whole.get_parameter(name).detach()):
                    weights[name.replace("down_proj", f"{expert}.down_proj.weight")] = value.contiguous()
            else:
                weights[name] = tensor
        save_file(weights, model / SINGLE, {"format": "pt"})
    export_language(str(model), tmp_path / "language")
    if not is_fused:
        with pytest.raises(BundleError, match="one tensor an expert"):
            load_language_model(tmp_path / "language", "fp32")
        return
    loaded = load_language_model(tmp_path / "language", "fp32")
    for name, expected in whole.model.language_model.state_dict().items():
        assert torch.equal(loaded.decoder.state_dict()[name], expected), name


def test_a_newcomers_folder_is_served(tmp_path: Path) -> None:
    """processor_config.json, vocab.json and merges.txt, shards, generation tags and no generation_config.json at once:
    the real server answers as transformers does on the same folder."""
    model = build(as_saved, tmp_path / "model")
    export_vision(str(model), tmp_path / "edge")
    export_language(str(model), tmp_path / "language")
    picture = drawn(3, 128, 160)
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Describe the image."}],
        }
    ]
    request = Pipeline(Encoder.from_bundle(tmp_path / "edge", threads=1)).request(messages)

    processor = load_processor(model)
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    assert request.input_ids.tolist() == inputs["input_ids"][0].tolist()
    whole = Qwen3VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    expected = whole.generate(
        **inputs, max_new_tokens=24, do_sample=False, eos_token_id=processor.tokenizer.eos_token_id
    )
    answer = expected[0, inputs["input_ids"].shape[1] :].tolist()
    with (
        TritonServer(settings(tmp_path / "language", dtype="fp32")) as server,
        GrpcClient(server.grpc_url) as client,
    ):
        deltas = list(client.stream(request, Sampling(max_tokens=24)))
    found = [token for delta in deltas for token in delta.token_ids]
    assert found == [token for token in answer if token != processor.tokenizer.eos_token_id] or found == answer
    assert np.isfinite(request.main).all()
