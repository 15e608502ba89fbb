"""What one precision must keep on every pack and output."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Bounds of one comparison.

    Attributes:
        min_cosine: the least cosine of any token row.
        mean_cosine: the least mean of the cosines of all token rows.
        max_relative_error: the largest |got - expected| over the output's root mean square; None sets no bound.
        is_centred: the cosines are those of rows without the reference's mean row. Loud channels that are the same in
            every row make all plain cosines 1, and say nothing about the rest.
    """

    min_cosine: float
    mean_cosine: float
    max_relative_error: float | None = None
    is_centred: bool = False

    def __str__(self) -> str:
        bound = "" if self.max_relative_error is None else f"relative error <= {self.max_relative_error:g}, "
        kind = "centred cosine" if self.is_centred else "cosine"
        return f"{bound}mean {kind} >= {self.mean_cosine}, worst row >= {self.min_cosine}"
