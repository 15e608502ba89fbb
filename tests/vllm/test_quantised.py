"""Quantised checkpoints on vLLM: what the server asks of it, and what it refuses. No engine is started."""

from pathlib import Path

import pytest
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

from contract.errors import BundleError
from contract.limits import Limits
from serving.quantisation import check_quantisation
from serving.vllm.arguments import engine_arguments
from tests.export.quantised import quantise
from tests.serving.reference import Reference

READ = ("fp8", "compressed-tensors", "gptq", "awq", "modelopt")


@pytest.mark.parametrize("method", READ)
def test_vllm_knows_it_and_computes_in_sixteen_bits_on_a_cpu(tmp_path: Path, method: str) -> None:
    reference = Reference(tmp_path, is_wide=True)
    assert engine_arguments(reference.language, Limits(), "auto", {}).dtype == "float32"
    assert len(quantise(reference.language, method)) == 4 * 7
    check_quantisation(reference.language, "vllm")
    assert engine_arguments(reference.language, Limits(), "auto", {}).dtype == "bfloat16"
    assert method in QUANTIZATION_METHODS


def test_bitsandbytes_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    """vLLM 0.32 does not have it any more."""
    reference = Reference(tmp_path)
    quantise(reference.language, "bitsandbytes")
    with pytest.raises(BundleError, match="bitsandbytes, which vLLM does not read: pip install accelerate bits"):
        check_quantisation(reference.language, "vllm")
    assert "bitsandbytes" not in QUANTIZATION_METHODS
