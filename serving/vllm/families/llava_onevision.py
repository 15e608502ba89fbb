"""LLaVA-OneVision on vLLM, without its tower and connector. The checkpoint has `image_newline`, as with LLaVA-NeXT.

Rows of a video stand in the place of a picture's: vLLM 0.32 takes videos of this family as pixels only.
"""

from vllm.model_executor.models import llava_onevision
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.rows import RowsGiven


class _Info(AnySize, llava_onevision.LlavaOnevisionProcessingInfo):  # type: ignore[misc]
    pass


@MULTIMODAL_REGISTRY.register_processor(
    llava_onevision.LlavaOnevisionMultiModalProcessor,
    info=_Info,
    dummy_inputs=llava_onevision.LlavaOnevisionDummyInputsBuilder,
)
class LlavaOnevisionForConditionalGeneration(RowsGiven, llava_onevision.LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """See the module."""
