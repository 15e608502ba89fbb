"""Learn the transform of `klt`: few coefficients of a row carry what the language model feels.

The rows' covariance C says how rows vary, the Fisher information F of the language model (E[g g^T] over the gradients g
of log-probabilities) how much an error costs. In the coordinates R x, R = F^(1/2), all errors cost alike, so the
eigenvectors of R C R are the best transform there, and one step serves all coefficients (reverse water-filling; T. Cover
and J. Thomas, Elements of Information Theory, section 10.3.3).
"""

import numpy as np
from numpy.typing import NDArray

from contract.codecs.klt import HIGHEST, OUTSIDE, rounded
from contract.codecs.learn import whole_shares
from contract.codecs.rans import TOTAL
from contract.codecs.transform import Transform

RIDGE = 1e-3  # of the mean of F's diagonal: what no calibration question felt still costs something
RARE_COEFFICIENT = 2e-3  # share of calibration rows: a coefficient that is seldom other than zero does not travel
SMOOTHING = 0.3  # share of the fitted distribution in a table; the rest is what calibration saw
RARE = 1e-4  # share of an even distribution: no symbol has frequency 0

Array = NDArray[np.float64]


class Statistics:
    """Sums over rows float64 (n, D) and over gradients of the same shape."""

    def __init__(self, width: int) -> None:
        self._rows: list[Array] = []
        self._fisher, self._num_felt = np.zeros((width, width)), 0

    def add_rows(self, rows: Array) -> None:
        """Count the rows of a picture, once a picture."""
        self._rows.append(rows)

    def add_gradients(self, gradients: Array) -> None:
        """Count the gradients of the rows of a picture under one question."""
        self._fisher += gradients.T @ gradients
        self._num_felt += len(gradients)

    def basis(self) -> "Basis":
        """The transform in steps of one; eigenvalues fall."""
        rows = np.concatenate(self._rows)
        mean, width = rows.mean(axis=0), rows.shape[1]
        fisher = self._fisher / self._num_felt
        fisher += RIDGE * np.trace(fisher) / width * np.eye(width)
        values, vectors = np.linalg.eigh(fisher)
        root, inverse = vectors * np.sqrt(values) @ vectors.T, vectors / np.sqrt(values) @ vectors.T
        spread = root @ np.cov((rows - mean).T) @ root
        eigenvalues, directions = np.linalg.eigh(spread)
        directions = directions[:, ::-1]
        unit = float(np.sqrt(eigenvalues.sum() / width))
        return Basis(rows, mean, root @ directions / unit, directions.T @ inverse * unit)


class Basis:
    """A transform whose step is still to be chosen.

    Args:
        rows: the calibration rows, float64 (n, D).
        mean: (D,).
        analysis: (D, D), from a row to coefficients; the mean variance of a coefficient is 1.
        synthesis: (D, D), back.
    """

    def __init__(self, rows: Array, mean: Array, analysis: Array, synthesis: Array) -> None:
        self._rows, self._mean, self._analysis, self._synthesis = rows, mean, analysis, synthesis

    def transform(self, step: float) -> Transform:
        """The numbers of the codec for a step, in units of the coefficients' mean size."""
        analysis = (self._analysis / step).astype(np.float16)
        centred = (self._rows - self._mean).astype(np.float32)
        whole = rounded(centred @ analysis.astype(np.float32))  # (n, D)
        kept = (whole != 0).mean(axis=0) > RARE_COEFFICIENT
        kept[0] = True
        return Transform(
            self._mean.astype(np.float32),
            np.ascontiguousarray(analysis[:, kept]),
            (self._synthesis * step)[kept].astype(np.float16),
            np.stack([_frequencies(column) for column in whole[:, kept].T]),
        )


def _frequencies(values: NDArray[np.floating]) -> NDArray[np.uint32]:
    """How often each symbol of a coefficient occurs, uint32 (256,): what calibration saw, smoothed by a two-sided
    geometric distribution with the same zeros and the same mean magnitude of the others."""
    size = np.abs(values)
    is_zero = size == 0
    zeros = np.clip(is_zero.mean(), 1 / (2 * len(values)), 1 - 1 / (2 * len(values)))
    mean = size[~is_zero].mean() if not is_zero.all() else 1.0
    ratio = np.clip(1 - 1 / max(mean, 1.0), 1e-3, 0.999)
    numbers = np.arange(-HIGHEST, HIGHEST + 1)
    fitted = np.where(numbers == 0, zeros, (1 - zeros) / 2 * (1 - ratio) * ratio ** (np.abs(numbers) - 1.0))
    shares = np.zeros(256)
    shares[numbers & 255] = SMOOTHING * fitted
    symbols = np.where(size > HIGHEST, OUTSIDE, values).astype(np.int64) & 255
    shares += (1 - SMOOTHING) * np.bincount(symbols, minlength=256) / len(values)
    shares = (1 - RARE) * shares / shares.sum() + RARE / 256
    found = whole_shares(shares)
    assert found.sum() == TOTAL
    return found
