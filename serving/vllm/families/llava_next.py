"""LLaVA-NeXT on vLLM, without its tower and connector. vLLM has `image_newline` as a parameter, so it must be in the
checkpoint, though the device has put it among the rows already."""

from vllm.model_executor.models import llava, llava_next
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.rows import RowsGiven


class _Info(AnySize, llava_next.LlavaNextProcessingInfo):  # type: ignore[misc]
    pass


@MULTIMODAL_REGISTRY.register_processor(
    llava_next.LlavaNextMultiModalProcessor, info=_Info, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class LlavaNextForConditionalGeneration(RowsGiven, llava_next.LlavaNextForConditionalGeneration):  # type: ignore[misc]
    """See the module."""
