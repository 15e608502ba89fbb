"""One operator of the domain "edge_vlm" at a time: its model, weights and rows for it, and what it means, in numpy.

The kernels are held against this on the processor of the tests and on emulated ones.
"""

from dataclasses import dataclass, replace
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graph.operators import DOMAIN, GELU_TANH, NORM_EPSILON, functions, kind_of_mlp, kind_of_norm
from export.graph.quantise import BLOCK, int4_blocks, int8_columns

MOST_INPUTS = 29432  # kMostInputs8 of kernels/linear.h
KEYS_PER_BLOCK, PANEL = 128, 64  # kKeysPerBlock of kernels/heads.h, kPanel of kernels/panel.h
FLOAT = TensorProto.FLOAT
Array = NDArray[np.float32]
Inputs = dict[str, tuple[int, int]]  # names of running inputs to type and rank
ROWS: Inputs = {"rows": (FLOAT, 2)}
ATTENTION: Inputs = {"packed": (FLOAT, 2), "shape": (TensorProto.INT64, 1), "cosines": (FLOAT, 2), "sines": (FLOAT, 2)}
ONE_STEP = 0.03  # a value half-way between two steps may be rounded either way, one step in 255 of its row
SOME_STEPS = 2e-3  # the same of attention, where many values are summed
RNG = np.random.default_rng(5)


def graph(kind: str, inputs: Inputs, constants: dict[str, NDArray], **attributes: Any) -> bytes:
    """A model of one operator; the attributes epsilon and activation stand for a tower that is not the usual one."""
    epsilon, activation = attributes.get("epsilon", NORM_EPSILON), attributes.get("activation", GELU_TANH)
    is_general = bool({"epsilon", "activation"} & attributes.keys())
    kind = f"General{kind}" if is_general else kind
    (function,) = functions([kind], epsilon, activation)
    node = helper.make_node(kind, list(function.input), ["result"], domain=DOMAIN, **attributes)
    made = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, type_, [None] * rank) for name, (type_, rank) in inputs.items()],
        [helper.make_tensor_value_info("result", FLOAT, [None, None])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(made, functions=[function], opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def stored(num_inputs: int, num_outputs: int, number: str = "") -> dict[str, NDArray]:
    """A random int8 layer under the operators' names."""
    values, steps = int8_columns(floats(num_outputs, num_inputs) / np.sqrt(num_inputs, dtype=np.float32))
    sums = values.sum(0, dtype=np.float64) * steps
    arrays = (values, steps, np.stack([sums, floats(num_outputs)]).astype(np.float32))
    return {f"{name}{number}": array for name, array in zip(("weight", "steps", "sums_and_bias"), arrays, strict=True)}


def blocks(num_inputs: int, num_outputs: int, number: str = "") -> dict[str, NDArray]:
    """A random int4 layer under the operators' names; a column in ten is loud, a row in ten too."""
    weight = floats(num_outputs, num_inputs) / np.sqrt(num_inputs, dtype=np.float32)
    weight[::10] *= 10
    weight[:, ::10] *= 3
    arrays = (*int4_blocks(weight), floats(num_outputs))
    return {f"{name}{number}": array for name, array in zip(("weight", "steps", "zeros", "bias"), arrays, strict=True)}


def _read(
    layer: dict[str, NDArray], num_inputs: int, number: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A layer of `blocks` as values less their zeros and steps, both (out, in), and the largest that a column could hold."""
    packed, steps, zeros = (layer[f"{name}{number}"] for name in ("weight", "steps", "zeros"))
    flat = packed.reshape(len(packed), -1)
    values, zeros = (np.stack([part & 15, part >> 4], -1).reshape(len(part), -1).astype(np.float32) for part in (flat, zeros))  # fmt: skip
    zeros = zeros[:, : steps.shape[1]]
    largest = (steps * np.maximum(zeros, 15 - zeros)).max(1)
    values, steps = values - np.repeat(zeros, BLOCK, 1), np.repeat(steps, BLOCK, 1)
    return values[:, :num_inputs], steps[:, :num_inputs], largest


def read_blocks(layer: dict[str, NDArray], num_inputs: int, number: str = "") -> NDArray[np.float64]:
    """The weights (in, out) of a layer of `blocks`."""
    values, steps, _ = _read(layer, num_inputs, number)
    return (values.astype(np.float64) * steps).T


def as_columns(layer: dict[str, NDArray], num_inputs: int, number: str = "") -> dict[str, NDArray]:
    """The int8 layer that kernels multiply in place of one of `blocks`."""
    values, steps, largest = _read(layer, num_inputs, number)
    step = largest / np.float32(127)
    weight = np.rint(values * (steps / step[:, None])).T
    sums_and_bias = np.stack([weight.sum(0) * step, layer[f"bias{number}"]])
    return {f"weight{number}": weight, f"steps{number}": step, f"sums_and_bias{number}": sums_and_bias}


def kept(num_inputs: int, num_outputs: int, bits: str, number: str = "") -> dict[str, NDArray]:
    """A random layer of fp16 ("16", "Bf16") or float32 ("32") weights under the operators' names."""
    weight = floats(num_outputs, num_inputs) / np.sqrt(num_inputs, dtype=np.float32)
    kind = np.float32 if bits == "32" else np.float16
    return {f"weight{number}": weight.astype(kind), f"bias{number}": floats(num_outputs)}


def product(rows: NDArray, layer: dict[str, NDArray], number: str = "") -> NDArray[np.float64]:
    """What a layer of `kept` means."""
    return rows.astype(np.float64) @ layer[f"weight{number}"].T.astype(np.float64) + layer[f"bias{number}"]


def terms(rows: NDArray, layer: dict[str, NDArray]) -> NDArray[np.float64]:
    """`product` of the magnitudes."""
    return product(np.abs(rows), {name: np.abs(values) for name, values in layer.items()})


def linear(rows: NDArray, layer: dict[str, NDArray], number: str = "") -> NDArray[np.float64]:
    """What Linear8 means: rows rounded to 255 steps between their lowest and highest value, whole numbers multiplied."""
    weight, steps, sums_and_bias = (layer[f"{name}{number}"] for name in ("weight", "steps", "sums_and_bias"))
    rows = rows.astype(np.float32)
    low, high = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
    step = np.maximum((high - low) * np.float32(1 / 255), np.float32(1e-12))
    zero = np.rint(-low / step)
    q = np.clip(np.rint(rows / step[:, None]) + zero[:, None], 0, 255)
    product = (q - zero[:, None]).astype(np.int64) @ weight.astype(np.int64)
    return product * step[:, None].astype(np.float64) * steps + sums_and_bias[1]


def norm(rows: Array, weight: Array, bias: Array, epsilon: float = 1e-6) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + epsilon) * weight + bias


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_by_erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def quick_gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / (1 + np.exp(-1.702 * x))


UNUSUAL = [(1e-5, "quick_gelu"), (1e-6, "gelu"), (1e-5, "gelu")]  # norms and MLPs of CLIP, InternViT and others
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu_by_erf}


def attributes_of(epsilon: float, activation: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of NormLinear and of NormMlpAdd."""
    return kind_of_norm(epsilon), kind_of_mlp(epsilon, activation)


def close(got: Array, expected: NDArray[np.float64], share: float, terms: NDArray[np.float64] | None = None) -> None:
    """The largest error is at most `share` of the expected values' root mean square, or of that of `terms`: what the
    sums would be if nothing in them cancelled. One value alone may be a small sum of large terms."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= share * np.sqrt(((expected if terms is None else terms) ** 2).mean())


def alike(got: Array, expected: NDArray[np.float64], share: float) -> None:
    """The root mean square of the errors is at most `share` of the expected values'."""
    assert got.shape == expected.shape
    assert np.sqrt(((got - expected) ** 2).mean()) <= share * np.sqrt((expected**2).mean())


@dataclass(frozen=True)
class Rounding:
    """How the kernels of one processor round attention: the largest integer of a query, key, share and value,
    whether channels are mixed first (target.h of kernels/), and places for each power of two in the table where whole panels of
    shares are looked up."""

    query: int
    key: int
    share: int
    value: int
    mixes: bool
    places: int | None = None


BYTES, SEVEN_BITS = Rounding(127, 127, 255, 127, True), Rounding(127, 127, 127, 127, True)
LOOKS_UP = Path("/proc/cpuinfo").exists() and "avx512vbmi" in Path("/proc/cpuinfo").read_text()
ROUNDINGS = {
    "avx512": replace(BYTES, places=32) if LOOKS_UP else BYTES,
    "i8mm": BYTES,
    "dotprod": SEVEN_BITS,
    "neon": SEVEN_BITS,
    "avx2": Rounding(2000, 4000, 16384, 2000, False),
}


def rounding(library: Path | None) -> Rounding | None:
    """None are the standard operators, which round nothing."""
    return None if library is None else ROUNDINGS[library.name.split(".")[2]]


def mixing(width: int) -> NDArray[np.float64]:
    """(width, width), orthogonal: Hadamard matrices of the largest powers of two on the diagonal."""
    size = 1 << (width.bit_length() - 1)
    made, one = np.zeros((width, width)), np.ones((1, 1))
    while len(one) < size:
        one = np.kron(np.array([[1, 1], [1, -1]]), one) / np.sqrt(2)
    made[:size, :size] = one
    if width > size:
        made[size:, size:] = mixing(width - size)
    return made


def whole(x: NDArray[np.float64], largest: int, axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """x in steps of its largest value along `axis` over `largest`."""
    step = np.maximum(np.abs(x).max(axis, keepdims=True), 1e-30) / largest
    return np.rint(x / step) * step


def attention(
    packed: Array, frames: int, heads: int, cosines: Array, sines: Array, how: Rounding | None
) -> NDArray[np.float64]:
    """In float64, rounded where the kernels round."""
    hw, dim = len(packed) // frames, packed.shape[1] // 3 // heads
    query, key, value = packed.astype(np.float64).reshape(frames, hw, 3, heads, dim).transpose(2, 0, 3, 1, 4)

    def turn(x: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = x[..., : dim // 2], x[..., dim // 2 :]
        return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], -1)

    query, key = turn(query), turn(key)
    if how:
        key = key - key.mean(-2, keepdims=True)
        if how.mixes:
            query, key = query @ mixing(dim).T, key @ mixing(dim).T
        query, value = whole(query, how.query, -1), whole(value, how.value, -2)
    sums, out = np.zeros((frames, heads, hw, 1)), np.zeros((frames, heads, hw, dim))
    highest = np.full((frames, heads, hw, 1), -np.inf)
    for start in range(0, hw, KEYS_PER_BLOCK):
        keys = key[..., start : start + KEYS_PER_BLOCK, :]
        keys = whole(keys, how.key, (-2, -1)) if how else keys
        scores = query @ keys.swapaxes(-1, -2) / np.sqrt(dim) / np.log(2)  # of base 2
        high = scores.max(-1, keepdims=True)
        below = high - scores
        if how and how.places and keys.shape[-2] % PANEL == 0:
            below = np.rint(below * how.places) / how.places
            below[below >= 255 / how.places] = np.inf
        shares = np.exp2(-below)
        shares = np.rint(shares * how.share) / how.share if how else shares
        now = np.maximum(highest, high)
        keep, scale = np.exp2(highest - now), np.exp2(high - now)
        sums = sums * keep + shares.sum(-1, keepdims=True) * scale
        out = out * keep + shares @ value[..., start : start + KEYS_PER_BLOCK, :] * scale
        highest = now
    return (out / sums).transpose(0, 2, 1, 3).reshape(frames * hw, heads * dim)


def loudest(num_inputs: int) -> tuple[Array, dict[str, NDArray]]:
    """Rows and weights whose sums are the largest a layer can have: steps of one, every byte and weight at its end."""
    rows = np.full((3, num_inputs), 255, np.float32)
    rows[1], rows[2, ::2] = -255, -100
    rows[2, 1::2] = 155
    weight = np.full((num_inputs, 3), 127, np.int8)
    weight[:, 1], weight[::2, 2] = -127, -127
    sums_and_bias = np.stack([weight.sum(0, dtype=np.float32), np.zeros(3, np.float32)])
    return rows, {"weight": weight, "steps": np.ones(3, np.float32), "sums_and_bias": sums_and_bias}
