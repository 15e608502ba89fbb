"""Weights as integers: signed 8-bit columns, and 4-bit blocks in the layout of onnxruntime's MatMulNBits.

Layout: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md (MatMulNBits).
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # weights along the input that share a step
NARROWINGS = (1.0, 0.95, 0.9, 0.85)  # shares of a block's range to try; the one of least squared error stays
LEVELS = 15  # steps between the lowest and the highest 4-bit value


def int8_columns(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """float32 (out, in) to int8 (in, out) and one step a column, float32 (out,). Symmetric: zero stays zero."""
    peaks = np.abs(weight).max(1)
    steps = np.where(peaks == 0, 1, peaks / 127).astype(np.float32)
    values = np.rint(weight / steps[:, None]).clip(-127, 127).astype(np.int8)
    return np.ascontiguousarray(values.T), steps


def int4_blocks(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """float32 (out, in) to packed values uint8 (out, blocks, BLOCK / 2), steps float32 (out, blocks) and packed zeros
    uint8 (out, ceil(blocks / 2)). The first of two neighbours is the low half of a byte."""
    out, width = weight.shape
    num_blocks = -(-width // BLOCK)
    blocks = np.zeros((out, num_blocks * BLOCK), np.float32)
    blocks[:, :width] = weight
    blocks = blocks.reshape(out, num_blocks, BLOCK)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)  # (out, blocks)
    best = np.full((out, num_blocks), np.inf, np.float32)
    steps, zeros, values = np.ones_like(best), np.zeros_like(best, np.uint8), np.zeros(blocks.shape, np.uint8)
    for share in NARROWINGS:
        step = np.maximum((high - low) * np.float32(share / LEVELS), np.float32(1e-20))
        zero = np.rint(-low * np.float32(share) / step).clip(0, LEVELS)
        tried = (np.rint(blocks / step[..., None]) + zero[..., None]).clip(0, LEVELS)
        error = ((((tried - zero[..., None]) * step[..., None]) - blocks) ** 2).sum(-1)
        better = error < best
        best = np.where(better, error, best)
        steps, zeros = np.where(better, step, steps), np.where(better, zero, zeros).astype(np.uint8)
        values = np.where(better[..., None], tried, values).astype(np.uint8)
    zeros = np.pad(zeros, ((0, 0), (0, num_blocks % 2)))
    return _pack(values), steps.astype(np.float32), _pack(zeros)


def _pack(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values below 16, (..., 2n), to bytes (..., n)."""
    return np.ascontiguousarray(values[..., 0::2] | (values[..., 1::2] << 4))
