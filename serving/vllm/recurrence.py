"""What vLLM's CPU build needs of gated-delta layers. Version 0.32 asserts the rest only in the first step, which ends it.

`vllm/model_executor/layers/mamba/ops/cpu/gdn_attention.py` asserts bfloat16, and its kernel `chunk_gated_delta_rule_cpu`
has two sizes of heads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import BundleError, InvalidInput

HEAD_SIZES = (64, 128)  # of keys and of values; the released models have 128
LINEAR = "linear_attention"  # transformers' name of such a layer in layer_types


def is_recurrent(text_config: Mapping[str, Any]) -> bool:
    """Whether the language model has gated-delta layers."""
    return LINEAR in (text_config.get("layer_types") or ())


def check_recurrence(folder: Path, text_config: Mapping[str, Any], dtype: str) -> None:
    """Check that vLLM computes these layers on a CPU.

    Args:
        dtype: vLLM's name of the number format.

    Raises:
        InvalidInput: the number format is not bfloat16.
        BundleError: the heads have another size.
    """
    if dtype != "bfloat16":
        raise InvalidInput(
            f"{folder} has gated-delta layers, which vLLM computes on a CPU in bfloat16 only, not in {dtype}: "
            "give --dtype bf16, or take --engine transformers"
        )
    sizes = text_config["linear_key_head_dim"], text_config["linear_value_head_dim"]
    if sizes[0] != sizes[1] or sizes[0] not in HEAD_SIZES:
        raise BundleError(
            f"{folder} has gated-delta layers with keys of {sizes[0]} and values of {sizes[1]} numbers; vLLM computes "
            f"both of {HEAD_SIZES[0]} or both of {HEAD_SIZES[1]} on a CPU: take --engine transformers"
        )
