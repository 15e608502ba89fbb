"""The kernels of each Arm processor against arithmetic in numpy, emulated: one process a processor runs all operators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.graph.operators import BF16
from tests.arm.machine import ArmMachine
from tests.edge.operators import (  # fmt: skip
    ACTIVATIONS,
    ATTENTION,
    MOST_INPUTS,
    ONE_STEP,
    RNG,
    ROWS,
    SOME_STEPS,
    UNUSUAL,
    Inputs,
    alike,
    as_columns,
    attention,
    attributes_of,
    blocks,
    close,
    floats,
    gelu,
    graph,
    kept,
    linear,
    loudest,
    norm,
    product,
    rounding,
    stored,
)

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from edge_runtime.tower import kernels
from edge_runtime.tower.session_options import session_options
for path in Path(sys.argv[1]).glob("*.onnx"):
    session = onnxruntime.InferenceSession(path, session_options(1, use_kernels=True))
    np.save(path.with_suffix(".npy"), session.run(None, dict(np.load(path.with_suffix(".npz"))))[0])
print(kernels.library())
"""
# What each processor is to choose: a Raspberry Pi 4, a Raspberry Pi 5, one with everything.
PROCESSORS = [("cortex-a72", "neon"), ("cortex-a76", "dotprod"), ("max", "i8mm")]

Check = Callable[[NDArray[np.float32], Path], None]  # the result, and the library that made it


@pytest.mark.parametrize(("cpu", "instructions"), PROCESSORS)
def test_operators_mean_what_they_say(arm: ArmMachine, tmp_path: Path, cpu: str, instructions: str) -> None:
    checks: dict[str, Check] = {}

    def add(
        kind: str, inputs: Inputs, constants: dict[str, NDArray], feeds: dict[str, NDArray], check: Check, **attributes: Any
    ) -> None:  # fmt: skip
        name = f"{kind}_{len(checks)}"
        (tmp_path / f"{name}.onnx").write_bytes(graph(kind, inputs, constants, **attributes))
        np.savez(tmp_path / f"{name}.npz", **feeds)
        checks[name] = check

    for rows, num_inputs, num_outputs in [(1, 4, 1), (7, 64, 64), (13, 70, 65), (97, 256, 200), (261, 2102, 80)]:
        layer, x = stored(num_inputs, num_outputs), np.rint(floats(rows, num_inputs) * 20).clip(-100, 100)
        x[:, 0], x[:, 1] = -100, 155  # steps of exactly one: nothing is rounded
        add("Linear8", ROWS, layer, {"rows": x}, lambda got, _, x=x, layer=layer: close(got, linear(x, layer), 1e-5))  # type: ignore[misc]
    loud, widest = loudest(MOST_INPUTS)
    add(
        "Linear8", ROWS, widest, {"rows": loud},
        lambda got, _: np.testing.assert_allclose(got, linear(loud, widest), rtol=1e-6, atol=300),
    )  # fmt: skip

    first, second, x = stored(64, 172, "_1"), stored(172, 64, "_2"), floats(261, 64) * 3
    weight, bias, factors = floats(64), floats(64), np.exp2(RNG.integers(-3, 4, 172)).astype(np.float32)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias, "factors": factors}
    wide = gelu(linear(norm(x, weight, bias), first, "_1")) * factors
    add(
        "NormMlpAdd8", ROWS, constants, {"rows": x}, lambda got, _: close(got - x, linear(wide, second, "_2"), ONE_STEP)
    )

    for epsilon, activation in UNUSUAL:
        inner = ACTIVATIONS[activation](linear(norm(x, weight, bias, epsilon), first, "_1")) * factors
        add(
            "NormMlpAdd8", ROWS, constants, {"rows": x},
            lambda got, _, inner=inner: close(got - x, linear(inner, second, "_2"), ONE_STEP),  # type: ignore[misc]
            **attributes_of(epsilon, activation)[1],
        )  # fmt: skip

    for rows, num_inputs, num_outputs in [(40, 4, 1), (1, 64, 64), (13, 70, 65), (261, 2102, 80)]:
        four, x4 = blocks(num_inputs, num_outputs), np.rint(floats(rows, num_inputs) * 20).clip(-100, 100)
        x4[:, 0], x4[:, 1] = -100, 155
        expected = linear(x4, as_columns(four, num_inputs))
        add(
            "Linear4", ROWS, four, {"rows": x4},
            lambda got, _, expected=expected: close(got, expected, 1e-5),  # type: ignore[misc]
            K=num_inputs, N=num_outputs,
        )  # fmt: skip

    for rows, num_inputs, num_outputs in [(19, 98, 70), (259, 601, 130)]:
        halves, x16 = kept(num_inputs, num_outputs, "16"), floats(rows, num_inputs)
        expected = product(x16, halves)
        add(
            "Linear16", ROWS, halves, {"rows": x16},
            lambda got, _, expected=expected: close(got, expected, 1e-5),  # type: ignore[misc]
            accuracy_level=BF16,  # may, and does not here
        )  # fmt: skip
    one, two, x16 = kept(64, 172, "16", "_1"), kept(172, 64, "16", "_2"), floats(261, 64) * 3
    wide16 = gelu(product(norm(x16, weight, bias), one, "_1"))
    add(
        "NormMlpAdd16", ROWS, one | two | {"norm_weight": weight, "norm_bias": bias}, {"rows": x16},
        lambda got, _: close(got, x16 + product(wide16, two, "_2"), 1e-5),
    )  # fmt: skip

    for frames, hw, heads, dim in [(3, 4, 2, 16), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 64), (2, 33, 2, 80)]:
        packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
        turns = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
        feeds = dict(zip(ATTENTION, [packed, np.array([frames, hw, 3 * heads * dim]), *turns], strict=True))
        add(
            "FrameAttention", ATTENTION, {}, feeds,
            lambda got, library, told=(packed, frames, heads, *turns): alike(got, attention(*told, rounding(library)), SOME_STEPS),  # type: ignore[misc]
            num_heads=heads, scale=dim**-0.5,
        )  # fmt: skip

    library = Path(arm.python(cpu, "-c", SCRIPT, tmp_path).strip())
    assert library.name == f"libedge_vlm.aarch64.{instructions}.so"
    for name, check in checks.items():
        check(np.load(tmp_path / f"{name}.npy"), library)
