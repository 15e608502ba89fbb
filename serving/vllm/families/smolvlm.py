"""SmolVLM on vLLM, without its tower and connector; between the runs of a picture's rows stand the markers of tiles."""

from vllm.model_executor.models import smolvlm
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.rows import RowsGiven


class _Info(AnySize, smolvlm.SmolVLMProcessingInfo):  # type: ignore[misc]
    pass


@MULTIMODAL_REGISTRY.register_processor(
    smolvlm.SmolVLMMultiModalProcessor, info=_Info, dummy_inputs=smolvlm.SmolVLMDummyInputsBuilder
)
class SmolVLMForConditionalGeneration(RowsGiven, smolvlm.SmolVLMForConditionalGeneration):  # type: ignore[misc]
    """See the module."""
