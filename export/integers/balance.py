"""Hidden channels of equal loudness: a factor before the second layer of each MLP, its inverse inside that layer.

A rotation cannot pass the activation function in front of these layers, so the graph multiplies their input, one
operation a layer. Factors are powers of two: the change is exact to the last bit. `factors` rounds them from float64,
so that two processors choose the same ones unless their float64 sums differ just where two factors meet.
Formula: https://arxiv.org/abs/2211.10438 (SmoothQuant), equation 4, alpha = 0.5.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from export.graph.tower import Tower

Read = Callable[[str], NDArray[np.float32]]
LOUDNESS_FLOOR, MAX_EXPONENT = 1e-5, 10


def balanced_layers(tower: Tower) -> list[str]:
    """The names of the linear layers behind an activation function."""
    mergers = ["merger", *(f"deepstack_merger_list.{i}" for i in range(len(tower.taps)))]
    return [f"blocks.{i}.mlp.linear_fc2" for i in range(tower.depth)] + [f"{name}.linear_fc2" for name in mergers]


def factors(peaks: Mapping[str, NDArray[np.float64]], read: Read) -> dict[str, NDArray[np.float32]]:
    """For each layer the factors of its input channels, float32 (in,): powers of two from 2^-10 to 2^10.

    Args:
        peaks: for each layer the largest magnitude of each input channel, float64 (in,).
        read: gives a tower tensor by its tower-local name, float32.
    """
    found = {}
    for name, peak in peaks.items():
        columns = np.linalg.norm(read(f"{name}.weight").astype(np.float64), axis=0)  # (in,), the same in any basis
        loudness = np.log2(np.maximum(peak, LOUDNESS_FLOOR)) - np.log2(np.maximum(columns, LOUDNESS_FLOOR))
        exponent = -0.5 * (loudness - loudness.mean())
        found[name] = np.exp2(np.rint(exponent).clip(-MAX_EXPONENT, MAX_EXPONENT)).astype(np.float32)
    return found


def divided(read: Read, by: Mapping[str, NDArray[np.float32]]) -> Read:
    """`read`, which divides the columns of the balanced layers' weights by their factors."""

    def change(name: str) -> NDArray[np.float32]:
        owner, _, kind = name.rpartition(".")
        values = read(name)
        return values / by[owner] if kind == "weight" and owner in by else values

    return change
