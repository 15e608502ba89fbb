"""Qwen2.5-VL: Qwen2-VL's language side under its own class."""

from serving.families.qwen2_vl import TOWER, inputs, names_taught, parts, shrink_tower

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES: tuple[str, ...] = ("Qwen2_5_VLForConditionalGeneration",)
VLLM = "serving.vllm.families.qwen2_vl"
