"""SmolVLM: a plain language model over rows, under names of its own."""

from typing import TYPE_CHECKING, Any

from serving.families.tiles import inputs, names_taught, shrink_tower

if TYPE_CHECKING:
    import torch

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES = ("SmolVLMForConditionalGeneration",)
TOWER = ("model.vision_model.", "model.connector.")
VLLM = "serving.vllm.families.smolvlm"


def parts(model: Any) -> tuple[Any, "torch.nn.Module"]:
    """See serving.families.Family."""
    return model.model.text_model, model.lm_head
