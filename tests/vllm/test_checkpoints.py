"""Checkpoints and arguments beyond the usual: a mixture of experts, tied embeddings, two processes for one model."""

import json

import pytest

from contract.limits import Limits
from serving.vllm.engine import VllmEngine
from tests.serving.reference import Reference
from tests.vllm.conftest import KV_BYTES
from tests.vllm.test_engine import answer


@pytest.mark.parametrize(
    ("kind", "given"),
    [({"is_moe": True}, {}), ({"tied": True}, {"tensor_parallel_size": 2})],
    ids=["mixture of experts", "tied embeddings on two processes"],
)
def test_tokens_equal_transformers(tmp_path, kind, given):
    reference = Reference(tmp_path, **kind)
    case = reference.case("other", "Look ", (1, 8, 8), " now", (2, 4, 4), seed=3)
    path = reference.language / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["norm_topk_prob"] = True  # stands in published configs; transformers 5 takes it for granted
    path.write_text(json.dumps(config))
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), "fp32", 1, given)
    assert answer(engine, case.prompt(reference.card))[0] == case.expected
    engine.close()
