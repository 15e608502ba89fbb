"""LLaVA-OneVision: a plain language model over rows."""

from serving.families.tiles import TOWER, inputs, names_taught, parts, shrink_tower

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES = ("LlavaOnevisionForConditionalGeneration",)
VLLM = "serving.vllm.families.llava_onevision"
