"""LLaVA-1.5 on vLLM, without its tower and connector."""

from vllm.model_executor.models import llava
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.rows import RowsGiven


class _Info(AnySize, llava.LlavaProcessingInfo):  # type: ignore[misc]
    pass


@MULTIMODAL_REGISTRY.register_processor(
    llava.LlavaMultiModalProcessor, info=_Info, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class LlavaForConditionalGeneration(RowsGiven, llava.LlavaForConditionalGeneration):  # type: ignore[misc]
    """See the module."""
