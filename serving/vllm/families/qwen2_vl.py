"""vLLM's Qwen2-VL and Qwen2.5-VL without their vision towers.

Their own code finds positions by the rule the other engine uses (contract.families.mrope), a video's seconds included,
and leaves the tower out. This module only tells vLLM the size of an item.
"""

from typing import Any

from vllm.model_executor.models import qwen2_5_vl, qwen2_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.positions import PositionsGiven


class _Qwen2Info(AnySize, qwen2_vl.Qwen2VLProcessingInfo):  # type: ignore[misc]
    pass


class _Qwen25Info(AnySize, qwen2_5_vl.Qwen2_5_VLProcessingInfo):  # type: ignore[misc]
    pass


def _registered(processor: type[Any], info: type[Any]) -> Any:
    return MULTIMODAL_REGISTRY.register_processor(processor, info=info, dummy_inputs=qwen2_vl.Qwen2VLDummyInputsBuilder)


@_registered(qwen2_vl.Qwen2VLMultiModalProcessor, _Qwen2Info)
class Qwen2VLForConditionalGeneration(PositionsGiven, qwen2_vl.Qwen2VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2-VL."""


@_registered(qwen2_5_vl.Qwen2_5_VLMultiModalProcessor, _Qwen25Info)
class Qwen2_5_VLForConditionalGeneration(  # noqa: N801  the name that config.json has
    PositionsGiven,
    qwen2_5_vl.Qwen2_5_VLForConditionalGeneration,  # type: ignore[misc]
):
    """Qwen2.5-VL."""
