"""Qwen3-VL and its mixtures of experts: deepstack levels are added to the first layers' outputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ARCHITECTURES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")
TOWER = ("model.visual.",)
VLLM = "serving.vllm.families.qwen3_vl"


@contextmanager
def names_taught() -> Iterator[None]:
    """Teach transformers checkpoints with one tensor an expert, as training tools write them: by the rule with which it
    fuses those of the language models that Qwen3-VL's is made of. transformers 5.23 has only the fused names for
    Qwen3-VL's class. The end of the block removes the rule, because save_pretrained would turn it round and fail."""
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )

    known, fusing = (get_checkpoint_conversion_mapping(name) or [] for name in ("qwen3_vl_moe", "qwen3_moe"))
    register_checkpoint_conversion_mapping("qwen3_vl_moe", [*known, *fusing], overwrite=True)
    try:
        yield
    finally:
        register_checkpoint_conversion_mapping("qwen3_vl_moe", known, overwrite=True)


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
