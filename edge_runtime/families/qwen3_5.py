"""Qwen3.5 and 3.6 on the device: what Qwen3-VL does."""

from edge_runtime.families.qwen3_vl import MARKS, arrange, clip, frame_size, indices, mode, picture, write

__all__ = ["MARKS", "arrange", "clip", "frame_size", "indices", "mode", "picture", "write"]
