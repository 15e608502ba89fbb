"""This module cuts frames into flat patches of bytes, in the order that the training of the vision tower used.

The order is the contract: patches of one 2x2 merge block stand side by side, so that the merger can join four
consecutive rows. A tower that gets patches in raster order raises no error, and the model answers nonsense. Patches
stay bytes: the graph normalises them in its first layer.
"""

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput
from contract.preprocessing import Triple

CHANNELS = 3
MAX_GREY_ERROR = 0.3  # in grey levels; bfloat16 rounds pixel values by less


def to_patches(
    frames: NDArray[np.uint8], patch_size: int = 16, merge_size: int = 2, temporal_patch_size: int = 2
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Cut frames into patches.

    Args:
        frames: uint8 (num_frames, height, width, 3), sides multiples of patch_size * merge_size. A still picture is
            one frame. The call repeats the last frame up to a multiple of temporal_patch_size.
        patch_size: pixels of a patch's side.
        merge_size: patches of a merge block's side.
        temporal_patch_size: frames of a patch.

    Returns:
        patches uint8 (t * h * w, 3 * temporal_patch_size * patch_size ** 2), values ordered channel, temporal, row,
        column, and the grid (t, h, w) in patches.

    The layout is that of transformers' `Qwen2VLImageProcessor._preprocess` and `Qwen3VLVideoProcessor.patchify`.
    """
    num_frames, height, width, channels = frames.shape
    if is_still := num_frames == 1:  # cut the picture once, and repeat its patches
        slices = 1
    else:
        slices = temporal_patch_size
        if pad := -num_frames % slices:  # only then: the call copies the whole clip
            frames = np.concatenate([frames, np.repeat(frames[-1:], pad, axis=0)])
    grid_t, grid_h, grid_w = len(frames) // slices, height // patch_size, width // patch_size
    blocks = frames.reshape(
        grid_t, slices,
        grid_h // merge_size, merge_size, patch_size,
        grid_w // merge_size, merge_size, patch_size,
        channels,
    )  # fmt: skip
    # (t, tp, H/m, m, p, W/m, m, p, c) -> (t, H/m, W/m, m, m, c, tp, p, p)
    blocks = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    patches = np.ascontiguousarray(blocks).reshape(grid_t * grid_h * grid_w, channels, slices, -1)
    if is_still:
        patches = np.repeat(patches, temporal_patch_size, axis=2)
    return patches.reshape(len(patches), -1), (grid_t, grid_h, grid_w)


def normalised(patches: NDArray[np.uint8], mean: Triple, std: Triple) -> NDArray[np.float32]:
    """The pixel_values of transformers' processors, (patches / 255 - mean) / std: the values that trained the tower.

    Args:
        patches: uint8 (n, 3 * temporal_patch * patch^2).
        mean, std: one value for each channel, on the 0..1 scale.

    Returns:
        float32 of the same shape.
    """
    scale, shift = _affine(mean, std)
    values = patches.reshape(len(patches), CHANNELS, -1) * scale - shift
    return values.reshape(patches.shape)


def to_bytes(pixel_values: NDArray[np.float32], mean: Triple, std: Triple) -> NDArray[np.uint8]:
    """The patches from which `normalised` made pixel_values.

    Args:
        pixel_values: float32 (n, 3 * temporal_patch * patch^2).
        mean, std: one value for each channel, on the 0..1 scale.

    Returns:
        uint8 of the same shape.

    Raises:
        InvalidInput: a value is no grey level of 0 to 255, normalised with this mean and std.
    """
    scale, shift = _affine(mean, std)
    values = (pixel_values.reshape(len(pixel_values), CHANNELS, -1) + shift) / scale
    levels = np.rint(values).clip(0, 255)
    if not (np.abs(values - levels) <= MAX_GREY_ERROR).all():  # NaN is not, either
        wrong = pixel_values.reshape(values.shape)[~(np.abs(values - levels) <= MAX_GREY_ERROR)]
        raise InvalidInput(
            f"pixel_values has {wrong[0]:g}, grey levels from 0 to 255 normalised with mean {list(mean)} and std "
            f"{list(std)} are expected"
        )
    whole: NDArray[np.uint8] = levels.astype(np.uint8)
    return whole.reshape(pixel_values.shape)


def _affine(mean: Triple, std: Triple) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The factor of a byte, and the number that one then subtracts from the product; each float32 (3, 1)."""
    means, stds = np.array(mean, np.float32)[:, None], np.array(std, np.float32)[:, None]
    return (1.0 / (255.0 * stds)).astype(np.float32), (means / stds).astype(np.float32)
