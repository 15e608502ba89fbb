"""Qwen3.5 and 3.6: their towers export; no engine here runs their recurrent layers yet, so every server refuses them."""

from serving.families.qwen3_vl import TOWER, inputs, names_taught, parts, shrink_tower

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES: tuple[str, ...] = ()
VLLM = ""
