"""Frames to flattened patches, in the order the vision tower was trained on.

The order is the contract: patches of one 2x2 merge block stand side by side, so that the merger can join four
consecutive rows. Raster order runs without an error and answers nonsense.
"""

import numpy as np
from numpy.typing import NDArray


def to_patches(
    frames: NDArray[np.uint8],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    patch_size: int = 16,
    merge_size: int = 2,
    temporal_patch_size: int = 2,
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Cut frames into normalised patches.

    Args:
        frames: uint8 (num_frames, height, width, 3), sides multiples of patch_size * merge_size. A still picture is
            one frame. The last frame is repeated up to a multiple of temporal_patch_size.
        mean, std: float32 (3,), on the 0..1 scale.

    Returns:
        pixel_values float32 (t * h * w, 3 * temporal_patch_size * patch_size ** 2), values ordered channel, temporal,
        row, column, and the grid (t, h, w) in patches.

    The layout is that of transformers' `Qwen2VLImageProcessor._preprocess` and `Qwen3VLVideoProcessor.patchify`.
    """
    num_frames, height, width, channels = frames.shape
    scale = (1.0 / (255.0 * std)).astype(np.float32)
    values = frames.astype(np.float32) * scale - (mean / std).astype(np.float32)  # (frames, height, width, 3)
    if num_frames == 1:  # a still is computed once and looked at twice
        values = np.broadcast_to(values, (temporal_patch_size, *values.shape[1:]))
    elif pad := -num_frames % temporal_patch_size:
        values = np.concatenate([values, np.repeat(values[-1:], pad, axis=0)])
    grid_t, grid_h, grid_w = len(values) // temporal_patch_size, height // patch_size, width // patch_size
    blocks = values.reshape(
        grid_t, temporal_patch_size,
        grid_h // merge_size, merge_size, patch_size,
        grid_w // merge_size, merge_size, patch_size,
        channels,
    )  # fmt: skip
    # (t, tp, H/m, m, p, W/m, m, p, c) -> (t, H/m, W/m, m, m, c, tp, p, p)
    blocks = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    pixel_values = np.ascontiguousarray(blocks).reshape(grid_t * grid_h * grid_w, -1)
    return pixel_values, (grid_t, grid_h, grid_w)
