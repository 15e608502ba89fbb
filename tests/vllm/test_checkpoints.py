"""Checkpoints and arguments beyond the usual: a mixture of experts, tied embeddings, two processes for one model."""

import json

import pytest
from safetensors.torch import load_file, save_file

from contract.limits import Limits
from serving.vllm.engine import VllmEngine
from tests.serving.reference import Reference
from tests.vllm.conftest import KV_BYTES
from tests.vllm.test_engine import answer


def as_published(folder):
    """Experts transposed and normalised, as the published checkpoints have them and transformers 5 no longer writes them."""
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["norm_topk_prob"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    turned = {k: v.transpose(1, 2).contiguous() if ".experts." in k else v for k, v in tensors.items()}
    save_file(turned, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "given"),
    [({"is_moe": True}, {}), ({"tied": True}, {"tensor_parallel_size": 2})],
    ids=["mixture of experts", "tied embeddings on two processes"],
)
def test_tokens_equal_transformers(tmp_path, kind, given):
    reference = Reference(tmp_path, **kind)
    case = reference.case("other", "Look ", (1, 8, 8), " now", (2, 4, 4), seed=3)
    if kind.get("is_moe"):
        as_published(reference.language)
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), "fp32", 1, given)
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    engine.close()
