"""Qwen2.5-VL: Qwen2-VL's rows; a video's positions follow its seconds."""

from contract.families.qwen2_vl import LAYOUT, POSITIONS, card, positions, runs

__all__ = ["LAYOUT", "POSITIONS", "card", "positions", "runs"]
