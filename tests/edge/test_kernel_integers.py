"""Layers of int8 and int4 against whole numbers in numpy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.edge.kernel_sessions import every_kernel, every_way, session
from tests.edge.operators import (
    ACTIVATIONS,
    FLOAT,
    MOST_INPUTS,
    ONE_STEP,
    RNG,
    ROWS,
    SOME_STEPS,
    UNUSUAL,
    alike,
    as_columns,
    attributes_of,
    blocks,
    close,
    floats,
    gelu,
    linear,
    loudest,
    norm,
    read_blocks,
    stored,
)

LOUD = 0.05  # what bytes cost layers of `blocks`, whose loudest channels are thirty times the others


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(1, 4, 1), (7, 64, 64), (13, 70, 65), (97, 256, 200), (300, 1152, 80)])  # fmt: skip
def test_a_linear_layer_is_exact_in_whole_numbers(
    library: Path | None, low_memory: bool, rows: int, num_inputs: int, num_outputs: int
) -> None:
    layer, x = stored(num_inputs, num_outputs), floats(rows, num_inputs)
    one = session("Linear8", ROWS, layer, library, low_memory=low_memory)
    got = one.run(None, {"rows": x})[0]
    close(got, linear(x, layer), ONE_STEP)
    on_steps = np.rint(x * 20).clip(-100, 100)
    on_steps[:, 0], on_steps[:, 1] = -100, 155  # steps of exactly one: nothing is rounded
    got = one.run(None, {"rows": on_steps})[0]
    close(got, linear(on_steps, layer), 1e-5)


@every_way
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_rows_of_one_value(library: Path | None, value: float) -> None:
    layer, x = stored(32, 40), np.full((3, 32), value, np.float32)
    got = session("Linear8", ROWS, layer, library).run(None, {"rows": x})[0]
    close(got, linear(x, layer), 1e-4)


@every_way
def test_the_norm_comes_before_the_layer(library: Path | None) -> None:
    layer, x, weight, bias = stored(96, 130), floats(50, 96) * 4 + 2, floats(96), floats(96)
    one = session("NormLinear8", ROWS, layer | {"norm_weight": weight, "norm_bias": bias}, library)
    close(one.run(None, {"rows": x})[0], linear(norm(x, weight, bias), layer), ONE_STEP)


@every_way
def test_the_residual_is_added_after_it(library: Path | None) -> None:
    layer, x, residual = stored(96, 70), floats(33, 96), floats(33, 70) * 10
    one = session("LinearAdd8", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, layer, library)
    got = one.run(None, {"rows": x, "residual": residual})[0]
    close(got - residual, linear(x, layer), ONE_STEP)


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("rows", [5, 256, 261, 700])  # one chunk of the kernel has 256
def test_an_mlp(library: Path | None, low_memory: bool, rows: int) -> None:
    first, second, x = stored(64, 172, "_1"), stored(172, 64, "_2"), floats(rows, 64) * 3
    weight, bias, factors = floats(64), floats(64), np.exp2(RNG.integers(-3, 4, 172)).astype(np.float32)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias, "factors": factors}
    got = session("NormMlpAdd8", ROWS, constants, library, low_memory=low_memory).run(None, {"rows": x})[0]
    wide = gelu(linear(norm(x, weight, bias), first, "_1")) * factors
    close(got - x, linear(wide, second, "_2"), ONE_STEP)


@every_way
@pytest.mark.parametrize(("epsilon", "activation"), UNUSUAL)
def test_bytes_of_another_norm_and_activation(library: Path | None, epsilon: float, activation: str) -> None:
    """Rows near zero, so that the epsilon shows, and activations from far below zero to far above; few and many rows."""
    of_norm, of_mlp = attributes_of(epsilon, activation)
    layer, weight, bias, quiet = stored(96, 130), floats(96), floats(96), floats(50, 96) * 3e-3
    one = session("NormLinear8", ROWS, layer | {"norm_weight": weight, "norm_bias": bias}, library, **of_norm)
    close(one.run(None, {"rows": quiet})[0], linear(norm(quiet, weight, bias, epsilon), layer), ONE_STEP)
    first, second, x = stored(96, 172, "_1"), stored(172, 96, "_2"), floats(300, 96)
    first["sums_and_bias_1"][1] = np.linspace(-30, 30, 172)
    factors = np.exp2(RNG.integers(-3, 4, 172)).astype(np.float32)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias, "factors": factors}
    mlp = session("NormMlpAdd8", ROWS, constants, library, **of_mlp)
    for rows in (x[:5], x):
        wide = ACTIVATIONS[activation](linear(norm(rows, weight, bias, epsilon), first, "_1")) * factors
        close(mlp.run(None, {"rows": rows})[0] - rows, linear(wide, second, "_2"), ONE_STEP)


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(40, 4, 1), (1, 64, 64), (13, 70, 65), (97, 256, 200), (300, 1170, 80)])  # fmt: skip
def test_layers_of_four_bits(
    library: Path | None, low_memory: bool, rows: int, num_inputs: int, num_outputs: int
) -> None:
    """Kernels multiply columns of bytes in the blocks' place; either way it is what the blocks say, to a small share."""
    layer, x, residual = blocks(num_inputs, num_outputs), floats(rows, num_inputs), floats(rows, num_outputs)
    weight, bias, sizes = floats(num_inputs), floats(num_inputs), {"K": num_inputs, "N": num_outputs}
    meant = read_blocks(layer, num_inputs)

    def check(got: NDArray, x: NDArray) -> None:
        alike(got, x @ meant + layer["bias"], LOUD)

    plain = session("Linear4", ROWS, layer, library, low_memory=low_memory, **sizes)
    check(plain.run(None, {"rows": x})[0], x)
    if library is not None:
        on_steps = np.rint(x * 20).clip(-100, 100)
        on_steps[:, 0], on_steps[:, 1] = -100, 155  # steps of exactly one: nothing is rounded
        close(plain.run(None, {"rows": on_steps})[0], linear(on_steps, as_columns(layer, num_inputs)), 1e-5)
    before = layer | {"norm_weight": weight, "norm_bias": bias}
    normed = session("NormLinear4", ROWS, before, library, low_memory=low_memory, **sizes)
    check(normed.run(None, {"rows": x + 2})[0], norm(x + 2, weight, bias))
    adding = session("LinearAdd4", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, layer, library, low_memory=low_memory, **sizes)  # fmt: skip
    check(adding.run(None, {"rows": x, "residual": residual})[0] - residual, x)


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("rows", [5, 256, 700])
@pytest.mark.parametrize(("hidden", "wide"), [(64, 172), (96, 96)])
def test_an_mlp_of_four_bits(library: Path | None, low_memory: bool, rows: int, hidden: int, wide: int) -> None:
    first, second, x = blocks(hidden, wide, "_1"), blocks(wide, hidden, "_2"), floats(rows, hidden) * 3
    weight, bias, factors = floats(hidden), floats(hidden), np.exp2(RNG.integers(-3, 4, wide)).astype(np.float32)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias, "factors": factors}
    one = session("NormMlpAdd4", ROWS, constants, library, low_memory=low_memory, K=hidden, N=wide)
    got = one.run(None, {"rows": x})[0]
    inner = gelu(norm(x, weight, bias) @ read_blocks(first, hidden, "_1") + first["bias_1"]) * factors
    alike(got - x, inner @ read_blocks(second, wide, "_2") + second["bias_2"], LOUD)
    if library is not None:
        first, second = as_columns(first, hidden, "_1"), as_columns(second, wide, "_2")
        inner = gelu(linear(norm(x, weight, bias), first, "_1")) * factors
        alike(got - x, linear(inner, second, "_2"), 5 * SOME_STEPS)


@every_way
@pytest.mark.parametrize(("epsilon", "activation"), UNUSUAL)
def test_four_bits_of_another_norm_and_activation(library: Path | None, epsilon: float, activation: str) -> None:
    """Rows near zero, so that the epsilon shows, and activations from far below zero to far above."""
    of_norm, of_mlp = attributes_of(epsilon, activation)
    layer, weight, bias, quiet = blocks(96, 130), floats(96), floats(96), floats(50, 96) * 3e-3
    norms = {"norm_weight": weight, "norm_bias": bias}
    one = session("NormLinear4", ROWS, layer | norms, library, K=96, N=130, **of_norm)
    normed = norm(quiet, weight, bias, epsilon)
    alike(one.run(None, {"rows": quiet})[0], normed @ read_blocks(layer, 96) + layer["bias"], LOUD)
    first, second, x = blocks(96, 172, "_1"), blocks(172, 96, "_2"), floats(300, 96)
    first["bias_1"] = np.linspace(-30, 30, 172, dtype=np.float32)
    factors = np.exp2(RNG.integers(-3, 4, 172)).astype(np.float32)
    constants = first | second | norms | {"factors": factors}
    got = session("NormMlpAdd4", ROWS, constants, library, K=96, N=172, **of_mlp).run(None, {"rows": x})[0]
    wide = norm(x, weight, bias, epsilon) @ read_blocks(first, 96, "_1") + first["bias_1"]
    inner = ACTIVATIONS[activation](wide) * factors
    alike(got - x, inner @ read_blocks(second, 172, "_2") + second["bias_2"], LOUD)


@every_way
def test_the_longest_sums_are_exact(library: Path | None) -> None:
    x, layer = loudest(MOST_INPUTS)
    got = session("Linear8", ROWS, layer, library).run(None, {"rows": x})[0]
    np.testing.assert_allclose(got, linear(x, layer), rtol=1e-6, atol=300)  # of up to 9.5e8


@every_kernel
def test_weights_whose_sums_would_overflow_are_refused(library: Path | None) -> None:
    layer = loudest(MOST_INPUTS + 1)[1]
    with pytest.raises(Exception, match="a layer of integers has 29433 inputs, at most 29432"):
        session("Linear8", ROWS, layer, library)
    layer = stored(64, 64)
    layer["weight"][3, 5] = -128  # two of its products with -128 are one too many for 16 bits
    with pytest.raises(Exception, match="-127 to 127"):
        session("Linear8", ROWS, layer, library)
