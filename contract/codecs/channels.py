"""What every learned codec does around its own work: it makes loud channels as quiet as the others, and loud again.

Without it one loud channel sets the step of its whole row, and the quiet channels drown: where 1 % of the channels are
20 times louder, int8 loses 1 % of the others (docs/upload.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs.int8 import SMALLEST, dequantise_levels, quantise_levels
from contract.codecs.numbers import CodecNumbers

LARGEST = float(np.finfo(np.float16).max)

Levels = NDArray[np.float32]  # (1+L, n, H), main first


def flattened(main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers) -> Levels:
    """Main (n, H) and deepstack (L, n, H) as levels float32 (1+L, n, H), each channel divided by its size; a copy."""
    levels = np.empty((1 + len(deepstack), *main.shape), np.float32)
    inverse = np.float32(1) / numbers.channel_scales  # (1+L, H)
    np.multiply(main, inverse[0], out=levels[0], dtype=np.float32)
    np.multiply(deepstack, inverse[1:, None], out=levels[1:], dtype=np.float32)
    return levels


def restored(levels: Levels, numbers: CodecNumbers) -> tuple[Levels, Levels]:
    """Main (n, H) and deepstack (L, n, H) of levels that `flattened` made; it multiplies in the same memory."""
    levels *= numbers.channel_scales[:, None]
    return levels[0], levels[1:]


def row_steps(levels: Levels, factors: NDArray[np.float32]) -> NDArray[np.float16]:
    """The step of each row, fp16 (1+L, n): its rms times its level's factor."""
    squares = np.einsum("lnh,lnh->ln", levels, levels) / np.float32(levels.shape[-1])
    steps = np.sqrt(squares) * factors[:, None]
    found: NDArray[np.float16] = np.clip(steps, SMALLEST, LARGEST).astype(np.float16)
    return found


def divide(levels: Levels, steps: NDArray[np.float16]) -> Levels:
    """Rows (1+L, n, H) in units of their steps, rounded to whole numbers; it overwrites `levels`."""
    levels *= np.float32(1) / steps.astype(np.float32)[..., None]
    return np.rint(levels, out=levels)


def encode_int8(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """vision_embeddings_q (1+L, n, H) and vision_scales (1+L, n) of the codec `int8c`."""
    return quantise_levels(flattened(main, deepstack, numbers))


def decode_int8(values: NDArray[np.int8], scales: NDArray[np.float16], numbers: CodecNumbers) -> tuple[Levels, Levels]:
    """Main (n, H) and deepstack (L, n, H), float32."""
    return restored(dequantise_levels(values, scales), numbers)
