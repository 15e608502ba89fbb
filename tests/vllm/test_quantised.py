"""Quantised checkpoints on vLLM's CPU build: answers are those of transformers with the weights that the file stands for.

The kernels compute in bfloat16, and some quantise the inputs too, so distributions are compared and not tokens.
"""

from pathlib import Path

import pytest
import torch

from contract.errors import BundleError
from contract.limits import Limits
from contract.sampling import Sampling
from serving.quantisation import check_quantisation
from serving.vllm.arguments import engine_arguments
from serving.vllm.engine import VllmEngine
from tests.export.quantised import quantise
from tests.serving.reference import Reference, forced_logprobs
from tests.vllm.conftest import KV_BYTES, LOOP
from tests.vllm.test_engine import answer

READ = ("fp8", "compressed-tensors", "gptq", "awq")
NUM_TOKENS = 4
CLOSE, FAR = 0.3, 1.0  # nats: between two runs of one model, and between two models


@pytest.mark.parametrize("method", READ)
def test_it_is_read_and_means_what_its_file_says(tmp_path: Path, method: str) -> None:
    if method == "fp8" and not torch.cpu._is_amx_tile_supported():
        pytest.skip("vLLM's CPU build multiplies FP8 blocks with AMX only; test_fp8_blocks_say_so has the refusal")
    reference = Reference(tmp_path, is_wide=True)
    case = reference.case("picture", "See ", (1, 8, 12), " what is it?", seed=2)
    weights, parameters = quantise(reference.language, method), dict(reference.model.named_parameters())
    assert len(weights) == 4 * 7
    check_quantisation(reference.language, "vllm")
    assert engine_arguments(reference.language, Limits(), "auto", {}).dtype == "bfloat16"
    prompt = case.prompt(reference.card)
    engine = VllmEngine.load(reference.language, Limits(max_kv_bytes=KV_BYTES), LOOP, "auto", 1, {})
    try:
        sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=0)
        tokens, _, _, logprobs = answer(engine, prompt, sampling)
    finally:
        engine.close()
    found = torch.tensor([one.logprob for one in logprobs])

    def distance() -> float:
        expected = forced_logprobs(reference.model, prompt, reference.card, tokens)
        return float((found - expected.gather(1, torch.tensor(tokens)[:, None])[:, 0]).abs().max())

    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
        close = distance()
        for name, weight in weights.items():  # a scale too large
            parameters[name].copy_(weight * 1.5)
        far = distance()
    print(method, tokens, close, far)
    assert close < CLOSE
    assert far > FAR


def test_bitsandbytes_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    """vLLM 0.32 does not have it any more."""
    reference = Reference(tmp_path)
    quantise(reference.language, "bitsandbytes")
    with pytest.raises(BundleError, match="bitsandbytes, which vLLM does not read: pip install accelerate bits"):
        check_quantisation(reference.language, "vllm")
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    assert "bitsandbytes" not in QUANTIZATION_METHODS
    assert {"fp8", "compressed-tensors", "gptq", "awq", "modelopt"} <= set(QUANTIZATION_METHODS)
