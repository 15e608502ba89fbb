"""The fast operators against arithmetic done in numpy, and against the standard operators they stand for.

A processor without the instructions runs the standard operators, and then only those are tested here.
"""

import json
import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_runtime import kernels
from edge_runtime.session_options import session_options
from export.operators import DOMAIN, FUNCTIONS
from export.quantise import int8_columns

LIBRARY = kernels.library()
WAYS = [False] if LIBRARY is None else [False, True]
KERNELS = WAYS[1:]
FLOAT = TensorProto.FLOAT
Array = NDArray[np.float32]
RNG = np.random.default_rng(5)


def session(
    kind: str, inputs: dict[str, tuple[int, int]], constants: dict[str, NDArray], has_kernels: bool, num_threads: int = 1, profile: Path | None = None, **attributes: float
) -> onnxruntime.InferenceSession:  # fmt: skip
    """A graph of one operator. inputs: names of its running inputs to type and rank."""
    function = FUNCTIONS[kind]
    node = helper.make_node(kind, list(function.input), ["result"], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, type_, [None] * rank) for name, (type_, rank) in inputs.items()],
        [helper.make_tensor_value_info("result", FLOAT, [None, None])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    options = session_options(num_threads)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if has_kernels:
        options.register_custom_ops_library(str(LIBRARY))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def stored(num_inputs: int, num_outputs: int, number: str = "") -> dict[str, NDArray]:
    """A random int8 layer under the operators' names."""
    values, steps = int8_columns(floats(num_outputs, num_inputs) / np.sqrt(num_inputs, dtype=np.float32))
    sums = values.sum(0, dtype=np.float64) * steps
    arrays = (values, steps, np.stack([sums, floats(num_outputs)]).astype(np.float32))
    return {f"{name}{number}": array for name, array in zip(("weight", "steps", "sums_and_bias"), arrays, strict=True)}


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


def norm(rows: Array, weight: Array, bias: Array) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-6) * weight + bias


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def close(got: Array, expected: NDArray[np.float64], share: float) -> None:
    """The largest error is at most `share` of the expected values' root mean square."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= share * np.sqrt((expected**2).mean())


# A value half-way between two steps may be rounded either way, one step in 255 of its row.
ONE_STEP = 0.03


@pytest.mark.parametrize("has_kernels", WAYS)
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(1, 4, 1), (7, 64, 64), (13, 70, 65), (97, 256, 200), (300, 1152, 80)])  # fmt: skip
def test_a_linear_layer_is_exact_in_whole_numbers(
    has_kernels: bool, rows: int, num_inputs: int, num_outputs: int
) -> None:
    layer, x = stored(num_inputs, num_outputs), floats(rows, num_inputs)
    got = session("Linear8", {"rows": (FLOAT, 2)}, layer, has_kernels).run(None, {"rows": x})[0]
    close(got, linear(x, layer), ONE_STEP)
    on_steps = np.rint(x * 20).clip(-100, 100)
    on_steps[:, 0], on_steps[:, 1] = -100, 155  # steps of exactly one: nothing is rounded
    got = session("Linear8", {"rows": (FLOAT, 2)}, layer, has_kernels).run(None, {"rows": on_steps})[0]
    close(got, linear(on_steps, layer), 1e-5)


@pytest.mark.parametrize("has_kernels", WAYS)
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_rows_of_one_value(has_kernels: bool, value: float) -> None:
    layer, x = stored(32, 40), np.full((3, 32), value, np.float32)
    got = session("Linear8", {"rows": (FLOAT, 2)}, layer, has_kernels).run(None, {"rows": x})[0]
    close(got, linear(x, layer), 1e-4)


@pytest.mark.parametrize("has_kernels", WAYS)
def test_the_norm_comes_before_the_layer(has_kernels: bool) -> None:
    layer, x, weight, bias = stored(96, 130), floats(50, 96) * 4 + 2, floats(96), floats(96)
    one = session("NormLinear8", {"rows": (FLOAT, 2)}, layer | {"norm_weight": weight, "norm_bias": bias}, has_kernels)
    close(one.run(None, {"rows": x})[0], linear(norm(x, weight, bias), layer), ONE_STEP)


@pytest.mark.parametrize("has_kernels", WAYS)
def test_the_residual_is_added_after_it(has_kernels: bool) -> None:
    layer, x, residual = stored(96, 70), floats(33, 96), floats(33, 70) * 10
    one = session("LinearAdd8", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, layer, has_kernels)
    got = one.run(None, {"rows": x, "residual": residual})[0]
    close(got - residual, linear(x, layer), ONE_STEP)


@pytest.mark.parametrize("has_kernels", WAYS)
@pytest.mark.parametrize("rows", [5, 256, 261, 700])  # one chunk of the kernel has 256
def test_an_mlp(has_kernels: bool, rows: int) -> None:
    first, second, x = stored(64, 172, "_1"), stored(172, 64, "_2"), floats(rows, 64) * 3
    weight, bias, factors = floats(64), floats(64), np.exp2(RNG.integers(-3, 4, 172)).astype(np.float32)
    constants = first | second | {"norm_weight": weight, "norm_bias": bias, "factors": factors}
    got = session("NormMlpAdd8", {"rows": (FLOAT, 2)}, constants, has_kernels).run(None, {"rows": x})[0]
    wide = gelu(linear(norm(x, weight, bias), first, "_1")) * factors
    close(got - x, linear(wide, second, "_2"), ONE_STEP)


@pytest.mark.parametrize("has_kernels", WAYS)
def test_a_half_precision_layer(has_kernels: bool) -> None:
    weight, bias, x = (floats(70, 98) / 10).astype(np.float16), floats(70), floats(19, 98)
    one = session("Linear16", {"rows": (FLOAT, 2)}, {"weight": weight, "bias": bias}, has_kernels)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    close(one.run(None, {"rows": x})[0], expected, 0.02 if has_kernels else 1e-5)  # bf16 keeps eight bits


def bf16(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to eight bits, to the nearest even."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def attention(
    packed: Array, frames: int, heads: int, cosines: Array, sines: Array, is_bf16: bool
) -> NDArray[np.float64]:
    """In float64; with is_bf16 queries, keys and values are rounded as the kernel rounds them."""
    hw, dim = len(packed) // frames, packed.shape[1] // 3 // heads
    query, key, value = packed.astype(np.float64).reshape(frames, hw, 3, heads, dim).transpose(2, 0, 3, 1, 4)

    def turn(x: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = x[..., : dim // 2], x[..., dim // 2 :]
        return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], -1)

    query, key = turn(query) / np.sqrt(dim) / np.log(2), turn(key)
    if is_bf16:
        query, key, value = bf16(query), bf16(key), bf16(value)
    scores = query @ key.swapaxes(-1, -2)  # (frames, heads, hw, hw), of base 2
    weights = np.exp2(scores - scores.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ value  # (frames, heads, hw, dim)
    return out.transpose(0, 2, 1, 3).reshape(frames * hw, heads * dim)


@pytest.mark.parametrize("has_kernels", WAYS)
@pytest.mark.parametrize("loudness", [1.0, 6.0])
@pytest.mark.parametrize(("frames", "hw", "heads", "dim"), [(1, 1, 2, 64), (3, 4, 2, 16), (1, 63, 1, 72), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 64), (2, 1030, 1, 32)])  # fmt: skip
def test_attention_within_frames(
    has_kernels: bool, frames: int, hw: int, heads: int, dim: int, loudness: float
) -> None:
    packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
    packed[:, : 2 * heads * dim] *= np.sqrt(loudness)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    inputs = {"packed": (FLOAT, 2), "shape": (TensorProto.INT64, 1), "cosines": (FLOAT, 2), "sines": (FLOAT, 2)}
    one = session("FrameAttention", inputs, {}, has_kernels, num_heads=heads, scale=dim**-0.5)
    shape = np.array([frames, hw, 3 * heads * dim])
    got = one.run(None, {"packed": packed, "shape": shape, "cosines": cosines, "sines": sines})[0]
    close(got, attention(packed, frames, heads, cosines, sines, has_kernels), 0.02 if has_kernels else 1e-4)


@pytest.mark.parametrize("has_kernels", KERNELS)
def test_threads_do_not_change_a_bit(has_kernels: bool) -> None:
    layer, x = stored(256, 1030), floats(611, 256)
    one, two = (session("Linear8", {"rows": (FLOAT, 2)}, layer, has_kernels, threads).run(None, {"rows": x})[0] for threads in (1, 2))  # fmt: skip
    assert np.array_equal(one, two)


@pytest.mark.parametrize("has_kernels", KERNELS)
def test_sizes_that_do_not_fit_are_errors_and_no_crash(has_kernels: bool) -> None:
    one = session("Linear8", {"rows": (FLOAT, 2)}, stored(64, 64), has_kernels)
    with pytest.raises(Exception, match="another width"):
        one.run(None, {"rows": floats(3, 60)})
    adding = session("LinearAdd8", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, stored(64, 64), has_kernels)
    with pytest.raises(Exception, match="residual"):
        adding.run(None, {"rows": floats(3, 64), "residual": floats(2, 64)})
    with pytest.raises(Exception, match="a step, a sum and a bias"):
        session("Linear8", {"rows": (FLOAT, 2)}, stored(64, 64) | {"steps": floats(3)}, has_kernels)
    inputs = {"packed": (FLOAT, 2), "shape": (TensorProto.INT64, 1), "cosines": (FLOAT, 2), "sines": (FLOAT, 2)}
    attending = session("FrameAttention", inputs, {}, has_kernels, num_heads=2, scale=0.125)
    with pytest.raises(Exception, match="sizes do not fit"):
        attending.run(
            None, {"packed": floats(4, 384), "shape": np.array([1, 5, 384]), "cosines": floats(5, 32), "sines": floats(5, 32)}
        )  # fmt: skip


@pytest.mark.parametrize("has_kernels", WAYS)
def test_the_kernel_runs_where_it_is_registered(has_kernels: bool, tmp_path: Path) -> None:
    one = session("Linear8", {"rows": (FLOAT, 2)}, stored(64, 64), has_kernels, profile=tmp_path / "profile")
    one.run(None, {"rows": floats(3, 64)})
    events = json.loads(Path(one.end_profiling()).read_text())
    kinds = {event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]}
    assert ("Linear8" in kinds) is has_kernels
    assert ("Gemm" in kinds) is not has_kernels


def test_a_missing_or_broken_library_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = kernels.library.__wrapped__
    monkeypatch.setattr(kernels, "LIBRARIES", tmp_path)
    assert find() is None
    (tmp_path / f"libedge_vlm.{platform.machine()}.so").write_bytes(b"no library")
    assert find() is None
