"""What one precision must keep on every pack and output."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Bounds of one comparison.

    Attributes:
        min_cosine: the least cosine of any token row.
        mean_cosine: the least mean of the cosines of all token rows.
        max_relative_error: the largest |got - expected| over the output's root mean square; None sets no bound.
    """

    min_cosine: float
    mean_cosine: float
    max_relative_error: float | None = None

    def __str__(self) -> str:
        bound = "" if self.max_relative_error is None else f"relative error <= {self.max_relative_error:g}, "
        return f"{bound}mean cosine >= {self.mean_cosine}, worst row >= {self.min_cosine}"
