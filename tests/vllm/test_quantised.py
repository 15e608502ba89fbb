"""Quantised checkpoints on vLLM: what the server asks of it, what it answers, and what it refuses."""

from pathlib import Path

import pytest
import torch
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

from contract.errors import BundleError
from contract.limits import Limits
from serving.quantisation import check_quantisation
from serving.vllm.arguments import engine_arguments
from serving.vllm.engine import VllmEngine
from tests.export.quantised import quantise
from tests.serving.reference import Reference
from tests.vllm.conftest import KV_BYTES, LOOP
from tests.vllm.test_engine import answer

READ = ("fp8", "compressed-tensors", "gptq", "awq", "modelopt")


@pytest.mark.parametrize("method", READ)
def test_vllm_knows_it_and_computes_in_sixteen_bits_on_a_cpu(tmp_path: Path, method: str) -> None:
    reference = Reference(tmp_path, is_wide=True)
    assert engine_arguments(reference.language, Limits(), "auto", {}).dtype == "float32"
    assert len(quantise(reference.language, method)) == 4 * 7
    check_quantisation(reference.language, "vllm")
    assert engine_arguments(reference.language, Limits(), "auto", {}).dtype == "bfloat16"
    assert method in QUANTIZATION_METHODS


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors", "gptq", "awq"])
def test_answers_are_those_of_the_weights_that_the_checkpoint_stands_for(tmp_path: Path, method: str) -> None:
    """vLLM computes in bfloat16; transformers, with the weights as they were stored, in float32."""
    reference = Reference(tmp_path, is_wide=True)
    weights = dict(reference.model.named_parameters())
    with torch.no_grad():
        for name, weight in quantise(reference.language, method).items():
            weights[name].copy_(weight)
    case = reference.case("picture", "See ", (1, 8, 12), " what", seed=2)
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), LOOP, "auto", 1, {})
    try:
        assert answer(engine, case.prompt(reference.card))[0] == case.expected
    finally:
        engine.close()


def test_bitsandbytes_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    """vLLM 0.32 does not have it any more."""
    reference = Reference(tmp_path)
    quantise(reference.language, "bitsandbytes")
    with pytest.raises(BundleError, match="bitsandbytes, which vLLM does not read: pip install accelerate bits"):
        check_quantisation(reference.language, "vllm")
    assert "bitsandbytes" not in QUANTIZATION_METHODS
