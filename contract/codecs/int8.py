"""Embeddings in int8 with one step a row and level, half the bytes of fp16.

Each row of each level has a step of its own, because levels differ in size and single tokens carry the outliers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIGHEST = 127
SMALLEST = np.finfo(np.float16).smallest_subnormal  # the step of a row of zeros


def quantise(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Main (N, H) and deepstack (L, N, H) as vision_embeddings_q (1+L, N, H) and vision_scales (1+L, N).

    The scale is the row's largest magnitude / 127, rounded to fp16 first, so that both machines multiply by the same.
    """
    return quantise_levels(np.concatenate([main[None], deepstack]).astype(np.float32))


def quantise_levels(levels: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Levels float32 (1+L, N, H) as int8 values of the same shape and scales (1+L, N), by the rule of `quantise`."""
    peaks = np.abs(levels).max(axis=-1, initial=0.0)  # (1+L, N)
    scales = np.maximum(peaks / HIGHEST, SMALLEST).astype(np.float16)
    quotients = np.rint(levels / scales[..., None].astype(np.float32))
    return np.clip(quotients, -HIGHEST, HIGHEST).astype(np.int8), scales


def dequantise(
    values: NDArray[np.int8], scales: NDArray[np.float16]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Main (N, H) and deepstack (L, N, H) from values (1+L, N, H) and scales (1+L, N)."""
    levels = dequantise_levels(values, scales)
    return levels[0], levels[1:]


def dequantise_levels(values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Levels float32 (1+L, N, H) from values of that shape and scales (1+L, N), in one pass."""
    return np.multiply(values, scales[..., None].astype(np.float32), dtype=np.float32)
