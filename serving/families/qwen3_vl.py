"""Qwen3-VL and its mixtures of experts: deepstack levels are added to the first layers' outputs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ARCHITECTURES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
TOWER = ("model.visual.",)
VLLM = "serving.vllm.families.qwen3_vl"


def shrink_tower(config: Any) -> None:
    """No blocks, no levels, a table of one position."""
    vision = config.vision_config
    vision.depth, vision.deepstack_visual_indexes, vision.num_position_embeddings = 0, [], 1


def parts(model: Any) -> tuple[Any, "torch.nn.Module"]:
    """See serving.families.Family."""
    return model.model.language_model, model.lm_head


def inputs(positions: "torch.Tensor", is_visual: "torch.Tensor", deepstack: "torch.Tensor | None") -> dict[str, Any]:
    """See serving.families.Family."""
    placed: dict[str, Any] = {"position_ids": positions[:, None]}  # (3, 1, T)
    if deepstack is not None:
        placed |= {"visual_pos_masks": is_visual[None], "deepstack_visual_embeds": list(deepstack)}
    return placed
