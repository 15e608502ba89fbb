"""engine_args.json against vLLM's own list; no engine is started."""

import pytest

from contract.errors import BundleError, InvalidInput
from contract.limits import Limits
from serving.vllm.arguments import FIXED, OWN, engine_arguments


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_the_server_sets_is_refused(reference, name):
    with pytest.raises(InvalidInput, match=f"'{name}', which the server sets"):
        engine_arguments(reference.language, Limits(), "auto", {name: FIXED.get(name)})


def test_an_unknown_name_is_refused_with_the_nearest(reference):
    with pytest.raises(InvalidInput, match="'tensor_paralel_size', which vLLM does not have: tensor_parallel_size"):
        engine_arguments(reference.language, Limits(), "auto", {"tensor_paralel_size": 2})


def test_what_is_given_stands(reference):
    given = {"tensor_parallel_size": 2, "max_num_seqs": 5, "kv_cache_memory_bytes": 1 << 30}
    made = engine_arguments(reference.language, Limits(max_active=3), "bf16", given)
    assert (made.tensor_parallel_size, made.max_num_seqs, made.kv_cache_memory_bytes) == (2, 5, 1 << 30)
    assert (made.dtype, made.limit_mm_per_prompt) == ("bfloat16", {"image": 0, "video": 0})


def test_a_request_must_fit_into_the_cache_of_a_cpu(reference):
    """4 layers x 2 heads x 32 x 4 bytes, keys and values, are 2 KiB a token."""
    made = engine_arguments(reference.language, Limits(max_kv_bytes=1000 << 11), "fp32", {})
    assert made.max_model_len == 7 * 128
    assert engine_arguments(reference.language, Limits(), "fp32", {}).max_model_len == 2048


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(BundleError):
        engine_arguments(tmp_path, Limits(), "auto", {})
