"""Qwen3.5 and 3.6: the export writes their towers; no engine runs their recurrent layers, so servers refuse them."""

from serving.families.qwen3_vl import TOWER, inputs, names_taught, parts, shrink_tower

__all__ = ["ARCHITECTURES", "TOWER", "VLLM", "inputs", "names_taught", "parts", "shrink_tower"]

ARCHITECTURES: tuple[str, ...] = ()
VLLM = ""
