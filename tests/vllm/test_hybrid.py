"""Qwen3.5 on vLLM, in bfloat16, the only format in which its CPU build computes gated-delta layers.

`tests/serving/near_tie.py` judges the answers.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.errors import BundleError, InvalidInput
from contract.limits import Limits
from serving.vllm.arguments import engine_arguments
from serving.vllm.engine import VllmEngine
from serving.vllm.tensors import check_tensors
from tests.serving.near_tie import NEAR_TIE, gap
from tests.serving.reference import Case, Reference, remove_tensor, write_config
from tests.vllm.conftest import KV_BYTES, LOOP, run
from tests.vllm.test_engine import answer, collect

LIMITS = Limits(max_kv_bytes=KV_BYTES, max_active=8)


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "experts"])
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.set_num_threads(1)
    return Reference(tmp_path_factory.mktemp("hybrid"), is_hybrid=True, is_moe=request.param)


@pytest.fixture(scope="module")
def cases(hybrid: Reference) -> dict[str, Case]:
    return hybrid.cases()


@pytest.fixture(scope="module")
def engine(hybrid: Reference) -> Iterator[VllmEngine]:
    engine = VllmEngine.load(hybrid.language, LIMITS, LOOP, "auto", 1, {"block_size": 32})
    yield engine
    assert not engine.is_dead()
    engine.close()


def test_answers_alone_and_eight_at_once(hybrid: Reference, cases: dict[str, Case], engine: VllmEngine) -> None:
    alone = [answer(engine, case.prompt(hybrid.card))[0] for case in cases.values()]

    async def together() -> Any:
        return await asyncio.gather(*(collect(engine, case.prompt(hybrid.card)) for case in cases.values()))

    found = [tokens for tokens, _, _, _ in run(together())]
    for name, case, one, other in zip(cases, cases.values(), alone, found, strict=True):
        assert gap(hybrid, case, one) < NEAR_TIE, name
        assert gap(hybrid, case, other) < NEAR_TIE, name
    assert sum(tokens == case.expected for tokens, case in zip(alone, cases.values(), strict=True)) >= 3
    wrong = cases["text"].expected
    assert gap(hybrid, cases["long text"], wrong) > 10 * NEAR_TIE  # the judge does not like everything


def test_an_expert_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """One tensor an expert, as transformers saves them: vLLM would start without it, and answer nonsense."""
    saved = Reference(tmp_path, is_hybrid=True, is_moe=True).language
    check_tensors(saved)
    remove_tensor(saved, tmp_path / "hole", "layers.1.mlp.experts.3.up_proj.weight")
    with pytest.raises(
        BundleError, match=r"lacks 1 tensors, the first is model\.layers\.1\.mlp\.experts\.gate_up_proj"
    ):
        check_tensors(tmp_path / "hole")


def test_what_vllm_does_not_compute_is_refused_before_it_starts(hybrid: Reference, tmp_path: Path) -> None:
    assert engine_arguments(hybrid.language, LIMITS, "auto", {}).dtype == "bfloat16"
    with pytest.raises(InvalidInput, match="in bfloat16 only, not in float32: give --dtype bf16"):
        engine_arguments(hybrid.language, LIMITS, "fp32", {})
    config = json.loads((hybrid.language / "config.json").read_text())
    for name in ("config.json", "edge_vlm.json"):
        shutil.copy(hybrid.language / name, tmp_path / name)
    write_config(tmp_path, text_config=config["text_config"] | {"linear_key_head_dim": 32})
    with pytest.raises(BundleError, match="keys of 32 and values of 128 numbers; vLLM computes both of 64"):
        engine_arguments(tmp_path, LIMITS, "auto", {})
