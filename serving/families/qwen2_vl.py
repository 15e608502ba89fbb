"""Qwen2-VL: a language model over rows with three axes of positions."""

from typing import TYPE_CHECKING, Any

from serving.families.qwen3_vl import TOWER, parts
from serving.families.tiles import names_taught

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES: tuple[str, ...] = ("Qwen2VLForConditionalGeneration",)
VLLM = "serving.vllm.families.qwen2_vl"


def shrink_tower(config: Any) -> None:
    """No blocks; see serving.families.Family."""
    config.vision_config.depth = 0


def inputs(positions: "torch.Tensor", is_visual: "torch.Tensor", deepstack: "torch.Tensor | None") -> dict[str, Any]:
    """Positions (3, 1, T); see serving.families.Family."""
    return {"position_ids": positions[:, None]}
