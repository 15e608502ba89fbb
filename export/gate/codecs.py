"""The gate of the learned codecs: what each loses on the rows of calibration pictures, and how many bits it takes.

A codec that misses its gate is no reason to withhold the tower: the export publishes the bundle without codec numbers
and says why, and the device sends fp16 or int8.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from contract.codecs.codec import CODECS
from contract.codecs.learn import learn
from contract.codecs.numbers import CodecNumbers
from contract.errors import ParityError

Levels = NDArray[np.float32]  # (1+L, n, H)


@dataclass(frozen=True)
class CodecRow:
    """One codec on the calibration rows. channel_error is the relative squared error of the median channel, at the
    worst level. The cosines compare rows whose channels are divided by their sizes."""

    codec: str
    bits_a_value: float
    channel_error: float
    mean_cosine: float
    worst_cosine: float

    def missed(self) -> str:
        """What misses the gate, empty when nothing does."""
        most_bits, most_error, least_cosine = GATES[self.codec]
        if self.bits_a_value > most_bits:
            return f"{self.codec} takes {self.bits_a_value:.2f} bits a value, {most_bits} are allowed"
        if self.channel_error > most_error:
            return f"{self.codec} has a relative error of {self.channel_error:.1e}, {most_error:.1e} is allowed"
        if self.worst_cosine < least_cosine:
            return f"{self.codec} has a row of cosine {self.worst_cosine:.4f}, {least_cosine} is allowed"
        return ""


# By codec: the most bits a value, which include the steps and states of small pictures; the largest relative error of
# the median channel; the least cosine of the worst row. A 512 x 512 picture takes 0.85 MiB at 3.4 bits of a 2B model.
# The bounds of the error are four times the error of normally distributed rows.
GATES = {"int8c": (8.3, 3e-4, 0.999), "int4": (4.3, 0.05, 0.95), "ecq": (3.4, 0.08, 0.95)}


def learned(pictures: Sequence[Levels], about: dict[str, object]) -> CodecNumbers:
    """Learn from the rows of pictures, float32 (1+L, n, H) each, and hold every codec against its gate on them.

    Args:
        about: what CodecNumbers.about shall say beside the measured figures, as JSON values.

    Raises:
        ParityError: a codec misses its gate.
    """
    levels = np.concatenate(pictures, axis=1)
    numbers = learn(levels)
    rows = [measure(name, levels, numbers) for name in numbers.names]
    if missed := [why for row in rows if (why := row.missed())]:
        raise ParityError(
            f"{missed[0]}: the codec does not fit this tower's rows. Nothing was published: report it, and name the checkpoint"
        )
    measured = {row.codec: {name: value for name, value in asdict(row).items() if name != "codec"} for row in rows}
    numbers.about.update(about | {"measured": measured, "answers": "not measured: the export sees the tower only"})
    return numbers


def measure(name: str, levels: Levels, numbers: CodecNumbers) -> CodecRow:
    """One codec's figures on rows float32 (1+L, n, H)."""
    codec = CODECS[name]
    arrays = codec.encode(levels[0], levels[1:], numbers)
    main, deepstack = codec.decode(*arrays, numbers)
    got = np.concatenate([main[None], deepstack]).astype(np.float64)
    expected = levels.astype(np.float64)
    error = ((got - expected) ** 2).sum(axis=1) / np.maximum((expected**2).sum(axis=1), 1e-30)  # (1+L, H)
    got, expected = (values / numbers.channel_scales[:, None] for values in (got, expected))
    norms = np.linalg.norm(got, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosines = np.divide((got * expected).sum(axis=-1), norms, out=np.ones_like(norms), where=norms > 0)
    bits = 8 * sum(array.nbytes for array in arrays) / levels.size
    channel_error = float(np.median(error, axis=1).max())
    return CodecRow(name, round(bits, 4), channel_error, float(cosines.mean()), float(cosines.min()))
