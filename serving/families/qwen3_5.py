"""Qwen3.5 and 3.6: gated-delta layers beside attention, three to one. No deepstack levels."""

from typing import TYPE_CHECKING, Any

from serving.families.qwen3_vl import TOWER, parts, shrink_tower
from serving.families.tiles import names_taught

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES: tuple[str, ...] = ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration")
VLLM = "serving.vllm.families.qwen3_5"


def inputs(positions: "torch.Tensor", is_visual: "torch.Tensor", deepstack: "torch.Tensor | None") -> dict[str, Any]:
    """Positions (3, 1, T), and no masks: each piece has its own; see serving.families.Family."""
    masks = {"full_attention": None, "linear_attention": None}
    return {"position_ids": positions[:, None], "attention_mask": masks}
