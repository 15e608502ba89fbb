"""Checkpoints and arguments beyond the usual: a mixture of experts, tied embeddings, two processes for one model, an adapter."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from contract.limits import Limits
from serving.vllm import adapters
from serving.vllm.engine import VllmEngine
from tests.serving.reference import Reference
from tests.vllm.conftest import KV_BYTES, LOOP, run
from tests.vllm.test_engine import answer, collect


def as_published(folder: Path) -> None:
    """Experts transposed and normalised, as the published checkpoints have them and transformers 5 no longer writes them."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["norm_topk_prob"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    turned = {k: v.transpose(1, 2).contiguous() if ".experts." in k else v for k, v in tensors.items()}
    save_file(turned, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ({"is_moe": True}, {}),
        ({"tied": True}, {"tensor_parallel_size": 2}),
        ({}, {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}}),
    ],
    ids=["mixture of experts", "tied embeddings on two processes", "tokens guessed from the prompt"],
)
def test_tokens_equal_transformers(tmp_path: Path, kind: Any, given: Any) -> None:
    reference = Reference(tmp_path, **kind)
    case = reference.case("other", "Look ", (1, 8, 8), " now", (2, 4, 4), seed=3)
    if kind.get("is_moe"):
        as_published(reference.language)
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1, given)
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    engine.close()


def write_adapter(folder: Path, reference: Reference, layer: int = 1, rank: int = 4) -> None:
    """A LoRA of one layer's q and v as peft writes it, and the reference's weights with it merged in."""
    folder.mkdir()
    generator, tensors = torch.Generator().manual_seed(9), {}
    for name in ("q_proj", "v_proj"):
        path = f"model.language_model.layers.{layer}.self_attn.{name}"
        weight = reference.model.get_submodule(path).weight
        down = torch.randn(rank, weight.shape[1], generator=generator) * weight.shape[1] ** -0.5
        up = torch.randn(weight.shape[0], rank, generator=generator)
        tensors |= {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": up}
        weight.data += up @ down
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("has_free_slot", [True, False])
def test_an_adapter_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_free_slot: bool) -> None:
    """Requests with a picture get it, those without do not, in one batch; without the free slot they would, too."""
    if not has_free_slot:
        monkeypatch.setattr(adapters, "check_adapters", lambda _: 1)
    reference = Reference(tmp_path)
    parts = {"picture": ("See ", (1, 8, 12), " now"), "video": ("See ", (2, 4, 8), " now"), "text": ("Tell me.",)}
    plain = {name: reference.case(name, *asked, seed=2) for name, asked in parts.items()}
    write_adapter(tmp_path / "adapter", reference)
    merged = reference.case("picture", *parts["picture"], seed=2)
    assert merged.expected != plain["picture"].expected
    given = {"enable_lora": True, "max_lora_rank": 8, "default_mm_loras": {"image": str(tmp_path / "adapter")}}
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), LOOP, "fp32", 1, given)

    async def beside() -> Any:
        return await asyncio.gather(*(collect(engine, case.prompt(reference.card)) for case in plain.values()))

    found = [answered[0] for answered in run(beside())]
    engine.close()
    assert found[0] == merged.expected
    assert (found[1:] == [plain["video"].expected, plain["text"].expected]) == has_free_slot
