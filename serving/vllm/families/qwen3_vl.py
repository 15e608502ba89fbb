"""vLLM's Qwen3-VL without its vision tower, with deepstack and positions for embeddings that come from elsewhere.

Where the tower is left out, vLLM 0.32 drops deepstack without a word. And it finds a video's frames by the
`<|vision_start|>` before each, so a prompt that lacks one ends the whole engine: this module takes positions from the
pads, by the rule that the other engine uses.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm.model_executor.models import qwen3_vl, qwen3_vl_moe
from vllm.multimodal import MULTIMODAL_REGISTRY

from contract.families.mrope import mrope_positions
from serving.vllm.families.any_size import AnySize
from serving.vllm.families.positions import PositionsGiven


class GridPositions:
    """A mixin: positions by the rule of the other engine."""

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        """vLLM's hook: positions (3, S) of a prompt, and the position after it minus S."""
        config = self.config  # type: ignore[attr-defined]
        in_order = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        positions, delta = mrope_positions(
            np.array(input_tokens, np.int64),
            _grids(in_order, "image"),
            _grids(in_order, "video"),
            config.image_token_id,
            config.video_token_id,
            config.vision_config.spatial_merge_size,
        )
        return torch.from_numpy(positions), delta


class _WithoutTower(GridPositions):
    """The mixin; vLLM's own class comes behind it."""

    def __init__(self, *, vllm_config: Any, prefix: str = "model") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        text, vision = self.config.text_config, self.config.vision_config  # type: ignore[attr-defined]
        num_levels = len(vision.deepstack_visual_indexes)
        max_tokens = vllm_config.scheduler_config.max_num_batched_tokens
        self.use_deepstack = num_levels > 0
        self.deepstack_num_level, self.multiscale_dim = num_levels, num_levels * text.hidden_size
        self.deepstack_input_embeds = [torch.zeros(max_tokens, text.hidden_size) for _ in range(num_levels)]
        self.deepstack_input_embeds_num_tokens = 0


def _grids(features: Sequence[Any], kind: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The grids (k, 3) of the items of one kind."""
    rows = [feature.data[f"{kind}_grid_thw"].data.tolist() for feature in features if feature.modality == kind]
    return np.array(rows, np.int64).reshape(-1, 3)


class _DenseInfo(AnySize, qwen3_vl.Qwen3VLProcessingInfo):  # type: ignore[misc]
    pass


class _MixtureInfo(AnySize, qwen3_vl_moe.Qwen3VLMoeProcessingInfo):  # type: ignore[misc]
    pass


def registered(info: type[Any]) -> Any:
    """The decorator that gives a model vLLM's processor of Qwen3-VL with these facts about its items."""
    return MULTIMODAL_REGISTRY.register_processor(
        qwen3_vl.Qwen3VLMultiModalProcessor, info=info, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
    )


@registered(_DenseInfo)
class Qwen3VLForConditionalGeneration(
    PositionsGiven,
    _WithoutTower,
    qwen3_vl.Qwen3VLForConditionalGeneration,  # type: ignore[misc]
):
    """Dense checkpoints."""


@registered(_MixtureInfo)
class Qwen3VLMoeForConditionalGeneration(
    PositionsGiven,
    _WithoutTower,
    qwen3_vl_moe.Qwen3VLMoeForConditionalGeneration,  # type: ignore[misc]
):
    """Mixtures of experts."""
