"""Qwen2.5-VL on the device: what Qwen2-VL does; the card says that seconds count."""

from edge_runtime.families.qwen2_vl import MARKS, arrange, clip, frame_size, indices, mode, picture, write

__all__ = ["MARKS", "arrange", "clip", "frame_size", "indices", "mode", "picture", "write"]
