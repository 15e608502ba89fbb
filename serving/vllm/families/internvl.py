"""InternVL on vLLM, without its tower and connector; vLLM serves the `-hf` checkpoints by its class of InternS1."""

from vllm.model_executor.models import interns1
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.rows import RowsGiven


class _Info(AnySize, interns1.InternS1ProcessingInfo):  # type: ignore[misc]
    pass


@MULTIMODAL_REGISTRY.register_processor(
    interns1.InternS1MultiModalProcessor, info=_Info, dummy_inputs=interns1.InternS1DummyInputsBuilder
)
class InternVLForConditionalGeneration(RowsGiven, interns1.InternS1ForConditionalGeneration):  # type: ignore[misc]
    """See the module."""
