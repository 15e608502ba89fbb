"""Embeddings in four bits with one step a row and level, a quarter of fp16.

The step is the row's rms times a factor. The export learns the factor of least squared error: it cuts the few values
beyond seven steps, which costs less than a coarser step for all.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs.channels import Levels, divide, flattened, restored, row_steps
from contract.codecs.nibbles import HAS_OUTSIDE, HIGHEST, pack, unpack
from contract.codecs.numbers import CodecNumbers
from contract.errors import InvalidInput


def encode(
    main: NDArray[np.floating[Any]], deepstack: NDArray[np.floating[Any]], numbers: CodecNumbers
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Main (n, H), deepstack (L, n, H) as vision_embeddings_q4 uint8 (1+L, n, H/2) and vision_scales fp16 (1+L, n)."""
    levels = flattened(main, deepstack, numbers)
    steps = row_steps(levels, numbers.int4_steps)
    whole = divide(levels, steps)
    return pack(np.clip(whole, -HIGHEST, HIGHEST, out=whole).astype(np.int8)), steps


def decode(codes: NDArray[np.uint8], steps: NDArray[np.float16], numbers: CodecNumbers) -> tuple[Levels, Levels]:
    """Main (n, H) and deepstack (L, n, H), float32.

    Raises:
        InvalidInput: a half byte is 8, which no encoder writes.
    """
    if (bad := HAS_OUTSIDE.take(codes)).any():
        place = np.argwhere(bad)[0].tolist()
        raise InvalidInput(
            f"vision_embeddings_q4{place} is {codes[tuple(place)]}, which has a half byte of 8: that stands for no "
            "value, send -7 to 7",
            check="int4-value",
        )
    levels = unpack(codes)
    levels *= steps.astype(np.float32)[..., None]
    return restored(levels, numbers)
