"""engine_args.json against vLLM's own list; no engine is started."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contract.errors import BundleError, InvalidInput
from contract.limits import Limits
from serving.vllm.arguments import FIXED, OWN, engine_arguments
from tests.serving.reference import Reference

DOC = Path(__file__).parents[2] / "docs" / "vllm.md"


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_the_server_sets_is_refused(reference: Reference, name: Any) -> None:
    with pytest.raises(InvalidInput, match=f"'{name}', which the server sets"):
        engine_arguments(reference.language, Limits(), "auto", {name: FIXED.get(name)})


def test_an_unknown_name_is_refused_with_the_nearest(reference: Reference) -> None:
    with pytest.raises(InvalidInput, match="'tensor_paralel_size', which vLLM does not have: tensor_parallel_size"):
        engine_arguments(reference.language, Limits(), "auto", {"tensor_paralel_size": 2})


def test_the_names_of_the_examples_are_known(reference: Reference, tmp_path: Path) -> None:
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOC.read_text(), re.DOTALL)]
    (tmp_path / "adapter_config.json").write_text("{}")
    for given in examples:
        folders = dict.fromkeys(given.get("default_mm_loras", ()), str(tmp_path))
        made = engine_arguments(
            reference.language, Limits(), "auto", given | ({"default_mm_loras": folders} if folders else {})
        )
        assert all(getattr(made, name) == value for name, value in given.items() if name != "default_mm_loras")


def test_what_is_given_stands(reference: Reference) -> None:
    given = {"tensor_parallel_size": 2, "max_num_seqs": 5, "kv_cache_memory_bytes": 1 << 30}
    made = engine_arguments(reference.language, Limits(max_active=3), "bf16", given)
    assert (made.tensor_parallel_size, made.max_num_seqs, made.kv_cache_memory_bytes) == (2, 5, 1 << 30)
    assert (made.dtype, made.limit_mm_per_prompt) == ("bfloat16", {"image": 0, "video": 0})


def test_a_request_must_fit_into_the_cache_of_a_cpu(reference: Reference) -> None:
    """4 layers x 2 heads x 32 x 4 bytes, keys and values, are 2 KiB a token."""
    made = engine_arguments(reference.language, Limits(max_kv_bytes=1000 << 11), "fp32", {})
    assert made.max_model_len == 7 * 128
    assert engine_arguments(reference.language, Limits(), "fp32", {}).max_model_len == 2048


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        engine_arguments(tmp_path, Limits(), "auto", {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"default_mm_loras": {"image": "/none"}}, "with 'enable_lora': add it"),
        ({"enable_lora": True, "default_mm_loras": {"audio": "/none"}}, "'audio', allowed are image, video"),
        ({"enable_lora": True, "default_mm_loras": {"image": "/none"}}, "no adapter_config.json"),
    ],
)
def test_adapters_that_would_be_ignored_are_refused(reference: Reference, given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        engine_arguments(reference.language, Limits(), "auto", given)


def test_a_slot_stays_free_for_those_without_an_adapter(reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    given = {"enable_lora": True, "default_mm_loras": {"image": str(tmp_path)}}
    assert engine_arguments(reference.language, Limits(), "auto", given).max_loras == 2
    with pytest.raises(InvalidInput, match="'max_loras' 1, on a CPU 2 are needed"):
        engine_arguments(reference.language, Limits(), "auto", given | {"max_loras": 1})
