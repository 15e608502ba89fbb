"""Layers of float32 and fp16, some of which may be multiplied in bf16, against numpy."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.tower.processor import instruction_sets
from export.graph.operators import BF16, FLOAT32, FUSED
from tests.edge.kernel_sessions import every_kernel, every_way, session
from tests.edge.operators import (  # fmt: skip
    ACTIVATIONS,
    FLOAT,
    ROWS,
    UNUSUAL,
    alike,
    attributes_of,
    close,
    floats,
    gelu,
    kept,
    norm,
    product,
    terms,
)


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("bits", ["16", "32"])
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(1, 3, 1), (7, 64, 64), (13, 70, 65), (259, 601, 130), (300, 1152, 80), (1033, 70, 65)])  # fmt: skip
def test_layers_of_floats(
    library: Path | None, low_memory: bool, bits: str, rows: int, num_inputs: int, num_outputs: int
) -> None:
    layer, x, residual = kept(num_inputs, num_outputs, bits), floats(rows, num_inputs), floats(rows, num_outputs)
    weight, bias = floats(num_inputs), floats(num_inputs)
    plain = session(f"Linear{bits}", ROWS, layer, library, low_memory=low_memory)
    close(plain.run(None, {"rows": x})[0], product(x, layer), 1e-5, terms(x, layer) if num_outputs == 1 else None)
    before = layer | {"norm_weight": weight, "norm_bias": bias}
    normed = session(f"NormLinear{bits}", ROWS, before, library, low_memory=low_memory)
    known = norm(x + 2, weight, bias)
    close(
        normed.run(None, {"rows": x + 2})[0],
        product(known, layer),
        1e-5,
        terms(known, layer) if num_outputs == 1 else None,
    )
    adding = session(f"LinearAdd{bits}", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, layer, library, low_memory=low_memory)  # fmt: skip
    got = adding.run(None, {"rows": x, "residual": residual})[0]
    close(got, product(x, layer) + residual, 1e-5)


@every_way
@pytest.mark.parametrize("bits", ["16", "32"])
@pytest.mark.parametrize("rows", [0, 5, 256, 1033, 1500])  # one chunk of the kernel has 1032
def test_an_mlp_of_floats(library: Path | None, bits: str, rows: int) -> None:
    first, second, x = kept(64, 172, bits, "_1"), kept(172, 64, bits, "_2"), floats(rows, 64) * 3
    weight, bias = 2 * floats(64), floats(64)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias}
    got = session(f"NormMlpAdd{bits}", ROWS, constants, library).run(None, {"rows": x})[0]
    expected = x + product(gelu(product(norm(x, weight, bias), first, "_1")), second, "_2")
    close(got, expected, 1e-5) if rows else np.testing.assert_array_equal(got, x)


@every_way
@pytest.mark.parametrize("bits", ["16", "32"])
@pytest.mark.parametrize(("epsilon", "activation"), UNUSUAL)
def test_floats_of_another_norm_and_activation(
    library: Path | None, bits: str, epsilon: float, activation: str
) -> None:
    """Rows near zero, so that the epsilon shows, and rows whose activations reach from far below zero to far above."""
    of_norm, of_mlp = attributes_of(epsilon, activation)
    layer, weight, bias, quiet = kept(64, 70, bits), floats(64), floats(64), floats(37, 64) * 3e-3
    got = session(f"NormLinear{bits}", ROWS, layer | {"norm_weight": weight, "norm_bias": bias}, library, **of_norm)
    close(got.run(None, {"rows": quiet})[0], product(norm(quiet, weight, bias, epsilon), layer), 1e-5)
    first, second, x = kept(64, 172, bits, "_1"), kept(172, 64, bits, "_2"), floats(300, 64)
    first["bias_1"] = np.linspace(-30, 30, 172, dtype=np.float32)
    constants = first | second | {"norm_weight": 2 * weight, "norm_bias": bias}
    got = session(f"NormMlpAdd{bits}", ROWS, constants, library, **of_mlp).run(None, {"rows": x})[0]
    wide = ACTIVATIONS[activation](product(norm(x, 2 * weight, bias, epsilon), first, "_1"))
    close(got, x + product(wide, second, "_2"), 1e-5)


@every_way
@pytest.mark.parametrize("activation", FUSED)
def test_activations_give_no_denormal_numbers(library: Path | None, activation: str) -> None:
    """A denormal number costs the next product a hundred cycles. The second layer lifts the activations, so that one shows."""
    lift, width, zeros = np.float32(1e30), 64, np.zeros(64, np.float32)
    first = {"weight_1": np.zeros((width, width), np.float32), "bias_1": np.linspace(-60, -8, width, dtype=np.float32)}
    second = {"weight_2": lift * np.eye(width, dtype=np.float32), "bias_2": zeros}
    constants = first | second | {"norm_weight": zeros, "norm_bias": zeros}
    made = session("NormMlpAdd32", ROWS, constants, library, **attributes_of(1e-6, activation)[1])
    got = np.abs(made.run(None, {"rows": np.zeros((3, width), np.float32)})[0].astype(np.float64) / lift)
    assert ((got == 0) | (got >= np.finfo(np.float32).tiny)).all()
    assert got.max() < 1e-4


@every_way
@pytest.mark.parametrize(("level", "share"), [(FLOAT32, 1e-5), (BF16, 0.02)])  # bf16: 8 bits, 98 products
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(19, 98, 70), (1, 3, 1), (300, 130, 64)])
def test_a_half_precision_layer(
    library: Path | None, level: int, share: float, rows: int, num_inputs: int, num_outputs: int
) -> None:
    weight, bias = (floats(num_outputs, num_inputs) / 10).astype(np.float16), floats(num_outputs)
    x = floats(rows, num_inputs)
    one = session("Linear16", ROWS, {"weight": weight, "bias": bias}, library, accuracy_level=level)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    close(one.run(None, {"rows": x})[0], expected, share)


@every_kernel
def test_a_layer_that_says_nothing_of_accuracy_is_float32(library: Path | None) -> None:
    """As in bundles of before."""
    weight, x = np.eye(64, dtype=np.float16), floats(5, 64)
    one = session("Linear16", ROWS, {"weight": weight, "bias": np.zeros(64, np.float32)}, library)
    np.testing.assert_array_equal(one.run(None, {"rows": x})[0], x)


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(1, 3, 1), (13, 70, 65), (259, 601, 130)])
def test_layers_that_may_be_bf16(
    library: Path | None, low_memory: bool, rows: int, num_inputs: int, num_outputs: int
) -> None:
    """To eight bits where they are, and as float32 where they are not, which is also where weights may not be copied."""
    is_bf16 = library is not None and not low_memory and bool(ctypes.CDLL(str(library)).EdgeVlmMultipliesBf16())
    share = 0.01 if is_bf16 else 1e-5
    layer, x, residual = kept(num_inputs, num_outputs, "Bf16"), floats(rows, num_inputs), floats(rows, num_outputs)
    norms = {"norm_weight": floats(num_inputs), "norm_bias": floats(num_inputs)}
    normed = session("NormLinearBf16", ROWS, layer | norms, library, low_memory=low_memory)
    expected = product(norm(x + 2, norms["norm_weight"], norms["norm_bias"]), layer)
    alike(normed.run(None, {"rows": x + 2})[0], expected, share)
    adding = session(
        "LinearAddBf16", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, layer, library, low_memory=low_memory
    )
    alike(adding.run(None, {"rows": x, "residual": residual})[0], product(x, layer) + residual, share)
    mlp = kept(num_inputs, num_outputs, "Bf16", "_1") | kept(num_outputs, num_inputs, "Bf16", "_2")
    wide = gelu(product(norm(x, norms["norm_weight"], norms["norm_bias"]), mlp, "_1"))
    got = session("NormMlpAddBf16", ROWS, mlp | norms, library, low_memory=low_memory).run(None, {"rows": x})[0]
    alike(got, x + product(wide, mlp, "_2"), share)
    if rows > 1:
        is_exact = bool(np.abs(got - (x + product(wide, mlp, "_2"))).max() < 1e-4)
        assert is_exact is not is_bf16


@every_way
@pytest.mark.parametrize(("epsilon", "activation"), UNUSUAL)
def test_layers_that_may_be_bf16_of_another_norm_and_activation(
    library: Path | None, epsilon: float, activation: str
) -> None:
    of_norm, of_mlp = attributes_of(epsilon, activation)
    norms, quiet, x = {"norm_weight": floats(64), "norm_bias": floats(64)}, floats(37, 64) * 3e-3, floats(300, 64)
    layer = kept(64, 70, "Bf16")
    got = session("NormLinearBf16", ROWS, layer | norms, library, **of_norm).run(None, {"rows": quiet})[0]
    alike(got, product(norm(quiet, *norms.values(), epsilon), layer), 0.01)
    first, second = kept(64, 172, "Bf16", "_1"), kept(172, 64, "Bf16", "_2")
    first["bias_1"] = np.linspace(-30, 30, 172, dtype=np.float32)
    got = session("NormMlpAddBf16", ROWS, first | second | norms, library, **of_mlp).run(None, {"rows": x})[0]
    wide = ACTIVATIONS[activation](product(norm(x, *norms.values(), epsilon), first, "_1"))
    alike(got, x + product(wide, second, "_2"), 0.01)


@every_kernel
def test_bf16_is_used_where_it_may_be(library: Path) -> None:
    """Neither silently missing on a processor that has it, nor where float32 was asked for."""
    layer, x = {"weight": np.eye(64, dtype=np.float16), "bias": np.zeros(64, np.float32)}, floats(5, 64)
    exact, rounded = (
        session("Linear16", ROWS, layer, library, accuracy_level=level).run(None, {"rows": x})[0]
        for level in (FLOAT32, BF16)
    )
    np.testing.assert_array_equal(exact, x)
    is_bf16 = bool(ctypes.CDLL(str(library)).EdgeVlmMultipliesBf16())
    assert (np.abs(rounded - x).max() > 0) == is_bf16
    has_any = {"avx512_bf16", "amx_bf16"} & set(instruction_sets())
    assert not is_bf16 or ("avx512" in library.name and has_any)
    np.testing.assert_allclose(rounded, x, rtol=2**-8)
