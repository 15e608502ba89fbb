"""The numbers of `klt`: a linear transform of whole rows, and how often each value of a coefficient occurs.

`python -m export.codec` learns them with the gradients of the language model, and writes them beside the other numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.codecs.rans import TOTAL
from contract.errors import BundleError

TYPES: dict[str, Any] = {  # names in the file, and types
    "klt_mean": np.float32,
    "klt_analysis": np.float16,
    "klt_synthesis": np.float16,
    "klt_frequencies": np.uint32,
}


@dataclass(frozen=True, eq=False)
class Transform:
    """D is (1+L)*H, the values of a row with main first; K is the number of coefficients that travel.

    Attributes:
        klt_mean: float32 (D,), which the encoder subtracts.
        klt_analysis: float16 (D, K), from a row to its coefficients in whole steps.
        klt_synthesis: float16 (K, D), back.
        klt_frequencies: uint32 (K, 256), how often each int8 of a coefficient occurs, the bits of the int8 as a number;
            -128 announces a value outside the table. A coefficient's sum is rans.TOTAL.

    Raises:
        BundleError: an array has another type or shape, or values outside its range.
    """

    klt_mean: NDArray[np.float32]
    klt_analysis: NDArray[np.float16]
    klt_synthesis: NDArray[np.float16]
    klt_frequencies: NDArray[np.uint32]

    def __post_init__(self) -> None:
        width, number = self.klt_mean.size, self.klt_synthesis.shape[0]
        shapes = {
            "klt_mean": (width,),
            "klt_analysis": (width, number),
            "klt_synthesis": (number, width),
            "klt_frequencies": (number, 256),
        }
        for name, expected in shapes.items():
            array = getattr(self, name)
            if array.dtype != TYPES[name] or array.shape != expected:
                raise BundleError(
                    f"{name} is {array.dtype} {list(array.shape)}, {np.dtype(TYPES[name])} {list(expected)} is expected"
                )
            if not np.isfinite(array).all():
                raise BundleError(f"{name} has values that are not finite")
        table = self.klt_frequencies
        if not number or (table < 1).any() or (table.sum(axis=1) != TOTAL).any():
            raise BundleError(f"klt_frequencies must be from 1 on, {TOTAL} a coefficient")

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in TYPES}
