"""Vectors of unit length, as embedding endpoints give them: cut to fewer dimensions, and compared."""

import base64

import numpy as np
from numpy.typing import NDArray

from contract.errors import InvalidInput

Vectors = NDArray[np.float32]  # (n, W)


def shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Vectors (n, W) as unit vectors of their first `dimensions` values, float32 (n, dimensions).

    A model that was trained for it (Matryoshka, arXiv 2205.13147) keeps most of its meaning there.

    Args:
        dimensions: None keeps all W.

    Raises:
        InvalidInput: dimensions is below 1 or above W.
    """
    width = vectors.shape[1]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidInput(
            f"dimensions is {dimensions}, 1 to {width} are allowed: the model's vectors have {width} values"
        )
    return unit(vectors[:, :dimensions])


def unit(vectors: Vectors) -> Vectors:
    """Vectors (n, W) divided by their lengths."""
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def cosines(one: Vectors, other: Vectors) -> NDArray[np.float32]:
    """The cosines of vectors (n, W) and (m, W), float32 (n, m)."""
    product: NDArray[np.float32] = unit(one) @ unit(other).T
    return product


def as_base64(vector: Vectors) -> str:
    """The bytes of a vector (W,) of float32, little end first, in base64: OpenAI's form."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
