"""What one precision must keep on every pack and output."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Bounds of one comparison.

    Attributes:
        min_cosine, mean_cosine: cosines of the worst token row, and the mean over rows.
        max_relative_error: max |got - expected| over the scale of the output; None where it is not bounded.
    """

    min_cosine: float
    mean_cosine: float
    max_relative_error: float | None = None

    def __str__(self) -> str:
        bound = "" if self.max_relative_error is None else f"relative error <= {self.max_relative_error:g}, "
        return f"{bound}mean cosine >= {self.mean_cosine}, worst row >= {self.min_cosine}"
