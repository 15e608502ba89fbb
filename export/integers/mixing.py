"""An orthogonal mixing of channels that gives every machine the same bits.

A product with a stored matrix goes through BLAS, which sums in an order that follows the processor. So `Mixing` stores
no matrix, but applies Walsh-Hadamard butterflies over the even part of the size and a small cosine transform over the
odd part. These are additions and products of whole arrays, one after another, and IEEE 754 fixes them to the last bit.
It is also less work. Butterflies: https://en.wikipedia.org/wiki/Fast_Walsh%E2%80%93Hadamard_transform
"""

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
COLUMNS = 32  # at a time: what stays in a core's own cache
COSINE_DIGITS = 12  # digits that a cosine keeps: libraries differ in the 16th


class Mixing:
    """Multiplies float64 (size, columns) with an orthogonal and symmetric matrix that has no large entry and leaves the
    all-ones vector as it is: it goes to frequencies, gives all but the constant one a random sign, and comes back."""

    def __init__(self, size: int) -> None:
        self._even = size & -size  # the largest power of two in it
        self._cosines = _cosine_transform(size // self._even)
        self._signs = 1.0 - 2 * np.random.default_rng(0).integers(0, 2, size)[:, None]  # (size, 1)
        self._signs[0] = 1

    def __call__(self, values: Matrix) -> Matrix:
        mixed = np.empty(values.shape)
        for start in range(0, values.shape[1], COLUMNS):
            part = np.array(values[:, start : start + COLUMNS], order="C")  # (size, up to COLUMNS)
            part = self._through(self._butterflies(part), self._cosines)
            part *= self._signs
            mixed[:, start : start + COLUMNS] = self._butterflies(self._through(part, self._cosines.T))
        return mixed / self._even  # the two Hadamard matrices give an exact power of two

    def _butterflies(self, values: Matrix) -> Matrix:
        """(odd * even, columns): it multiplies every run of `even` rows with a Hadamard matrix, in place."""
        half = 1
        while half < self._even:
            pairs = values.reshape(-1, 2, half, values.shape[1])
            low, high = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
            pairs[:, 0], pairs[:, 1] = low, high
            half *= 2
        return values

    def _through(self, values: Matrix, matrix: Matrix) -> Matrix:
        """(odd * even, columns) with `matrix` (odd, odd) over the slow half of the rows; it sums in that order."""
        if len(matrix) == 1:
            return values
        parts = values.reshape(len(matrix), -1)  # (odd, even * columns)
        summed = np.zeros_like(parts)
        for row, factors in zip(summed, matrix, strict=True):
            for factor, part in zip(factors, parts, strict=True):
                row += factor * part
        return summed.reshape(values.shape)


def _cosine_transform(size: int) -> Matrix:
    """DCT-II as float64 (size, size): its first row is constant, and it is orthogonal to COSINE_DIGITS digits."""
    scales = [math.sqrt((1 if frequency == 0 else 2) / size) for frequency in range(size)]
    return np.array(
        [
            [
                round(scale * math.cos(math.pi * frequency * (place + 0.5) / size), COSINE_DIGITS)
                for place in range(size)
            ]
            for frequency, scale in enumerate(scales)
        ]
    )
