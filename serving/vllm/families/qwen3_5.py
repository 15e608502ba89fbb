"""vLLM's Qwen3.5 and 3.6 without their vision towers.

vLLM's own code keeps the states of gated-delta layers. This module gives positions as the other engine does, because
vLLM finds a video's frames by the mark before each, and a prompt that lacks one ends the whole engine.
"""

from vllm.model_executor.models import qwen3_5

from serving.vllm.families.any_size import AnySize
from serving.vllm.families.positions import PositionsGiven
from serving.vllm.families.qwen3_vl import GridPositions, registered


class _DenseInfo(AnySize, qwen3_5.Qwen3_5ProcessingInfo):  # type: ignore[misc]
    pass


class _MixtureInfo(AnySize, qwen3_5.Qwen3_5MoeProcessingInfo):  # type: ignore[misc]
    pass


@registered(_DenseInfo)
class Qwen3_5ForConditionalGeneration(  # noqa: N801  the name that config.json has
    PositionsGiven,
    GridPositions,
    qwen3_5.Qwen3_5ForConditionalGeneration,  # type: ignore[misc]
):
    """Dense checkpoints."""


@registered(_MixtureInfo)
class Qwen3_5MoeForConditionalGeneration(  # noqa: N801
    PositionsGiven,
    GridPositions,
    qwen3_5.Qwen3_5MoeForConditionalGeneration,  # type: ignore[misc]
):
    """Mixtures of experts."""
