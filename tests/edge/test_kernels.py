"""The fast operators against arithmetic done in numpy, and against the standard operators they stand for.

A processor without the instructions runs the standard operators, and then only those are tested here.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from edge_runtime.tower import kernels
from edge_runtime.tower.processor import kernel_families
from edge_runtime.tower.session_options import session_options
from export.graph.operators import BF16, FLOAT32
from tests.edge.operators import (  # fmt: skip
    ATTENTION,
    FLOAT,
    MOST_INPUTS,
    ONE_STEP,
    RNG,
    ROWS,
    SOME_STEPS,
    Inputs,
    alike,
    as_columns,
    attention,
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
    read_blocks,
    rounding,
    stored,
)

KERNELS = list(kernels.supported())
LOUD = 0.05  # what bytes cost layers of `blocks`, whose loudest channels are thirty times the others
every_way = pytest.mark.parametrize("library", [None, *KERNELS], ids=lambda path: path.name if path else "standard")
every_kernel = pytest.mark.parametrize("library", KERNELS, ids=lambda path: path.name)


def session(
    kind: str, inputs: Inputs, constants: dict[str, NDArray], library: Path | None, num_threads: int = 1, profile: Path | None = None, low_memory: bool = False, **attributes: float
) -> onnxruntime.InferenceSession:  # fmt: skip
    options = session_options(num_threads, low_memory=low_memory)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if library is not None:
        options.register_custom_ops_library(str(library))
    model = graph(kind, inputs, constants, **attributes)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def layer_of(bits: str, num_inputs: int, num_outputs: int) -> dict[str, NDArray]:
    """A random layer of any kind."""
    make = {"4": blocks, "8": stored}.get(bits)
    return make(num_inputs, num_outputs) if make else kept(num_inputs, num_outputs, bits)


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


OWN = """
import re, sys
import onnxruntime
from edge_runtime.tower.session_options import session_options
options = session_options(1, low_memory=sys.argv[3] == "True")
options.register_custom_ops_library(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


@every_kernel
@pytest.mark.parametrize("bits", ["4", "8"])
def test_weights_are_copied_only_where_that_is_faster_and_allowed(library: Path, bits: str, tmp_path: Path) -> None:
    inputs, outputs = 1024, 8192
    sizes = {"K": inputs, "N": outputs} if bits == "4" else {}
    model = tmp_path / "one.onnx"
    model.write_bytes(graph(f"Linear{bits}", ROWS, layer_of(bits, inputs, outputs), **sizes))
    plain, low = (
        int(
            subprocess.run(
                [sys.executable, "-c", OWN, model, library, str(low)], check=True, capture_output=True
            ).stdout
        )
        for low in (False, True)
    )
    copies = "avx512" in library.name
    assert (plain - low > inputs * outputs * 0.7) is copies, (plain, low)  # a byte a weight
    assert (abs(plain - low) < inputs * outputs * 0.3) is not copies


@every_way
@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("bits", ["16", "32"])
@pytest.mark.parametrize(("rows", "num_inputs", "num_outputs"), [(1, 3, 1), (7, 64, 64), (13, 70, 65), (259, 601, 130), (300, 1152, 80)])  # fmt: skip
def test_layers_of_floats(
    library: Path | None, low_memory: bool, bits: str, rows: int, num_inputs: int, num_outputs: int
) -> None:
    layer, x, residual = kept(num_inputs, num_outputs, bits), floats(rows, num_inputs), floats(rows, num_outputs)
    weight, bias = floats(num_inputs), floats(num_inputs)
    plain = session(f"Linear{bits}", ROWS, layer, library, low_memory=low_memory)
    close(plain.run(None, {"rows": x})[0], product(x, layer), 1e-5)
    before = layer | {"norm_weight": weight, "norm_bias": bias}
    normed = session(f"NormLinear{bits}", ROWS, before, library, low_memory=low_memory)
    close(normed.run(None, {"rows": x + 2})[0], product(norm(x + 2, weight, bias), layer), 1e-5)
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


@every_kernel
def test_bf16_is_used_where_it_may_be(library: Path) -> None:
    """Neither silently missing on a processor that has it, nor where float32 was asked for."""
    layer, x = {"weight": np.eye(64, dtype=np.float16), "bias": np.zeros(64, np.float32)}, floats(5, 64)
    exact, rounded = (
        session("Linear16", ROWS, layer, library, accuracy_level=level).run(None, {"rows": x})[0]
        for level in (FLOAT32, BF16)
    )
    np.testing.assert_array_equal(exact, x)
    is_bf16 = "avx512" in library.name and "avx512_bf16" in kernel_families()
    assert (np.abs(rounded - x).max() > 0) == is_bf16
    np.testing.assert_allclose(rounded, x, rtol=2**-8)


@every_way
@pytest.mark.parametrize("loudness", [1.0, 6.0])
@pytest.mark.parametrize(("frames", "hw", "heads", "dim"), [(1, 1, 2, 64), (3, 4, 2, 16), (1, 63, 1, 72), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 64), (2, 1030, 1, 32)])  # fmt: skip
def test_attention_within_frames(
    library: Path | None, frames: int, hw: int, heads: int, dim: int, loudness: float
) -> None:
    packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
    packed[:, : 2 * heads * dim] *= np.sqrt(loudness)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    one = session("FrameAttention", ATTENTION, {}, library, num_heads=heads, scale=dim**-0.5)
    shape = np.array([frames, hw, 3 * heads * dim])
    got = one.run(None, {"packed": packed, "shape": shape, "cosines": cosines, "sines": sines})[0]
    told = (packed, frames, heads, cosines, sines)
    if library is None:
        return close(got, attention(*told, None), 1e-4)
    alike(got, attention(*told, rounding(library)), SOME_STEPS)
    alike(got, attention(*told, None), 0.04)  # what bytes cost at worst, at loudness 6


@every_way
@pytest.mark.parametrize("loudness", [1.0, 30.0])
@pytest.mark.parametrize(("frames", "hw", "heads", "dim"), [(1, 1, 2, 64), (3, 4, 2, 16), (1, 63, 1, 72), (2, 65, 2, 72), (1, 97, 3, 64), (1, 600, 1, 80), (2, 1030, 1, 32), (1, 70, 1, 256), (1, 200, 1, 6)])  # fmt: skip
def test_attention_in_floats(library: Path | None, frames: int, hw: int, heads: int, dim: int, loudness: float) -> None:
    packed, angles = floats(frames * hw, 3 * heads * dim), RNG.uniform(0, 6, (hw, dim // 2))
    packed[:, : 2 * heads * dim] *= np.sqrt(loudness)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    one = session("FrameAttention32", ATTENTION, {}, library, num_heads=heads, scale=dim**-0.5)
    shape = np.array([frames, hw, 3 * heads * dim])
    got = one.run(None, {"packed": packed, "shape": shape, "cosines": cosines, "sines": sines})[0]
    close(got, attention(packed, frames, heads, cosines, sines, None), 3e-5 * loudness)


@every_way
@pytest.mark.parametrize("loudness", [40, 600, 1e4])
@pytest.mark.parametrize("row", [5, 130, 500])
def test_a_late_key_takes_all_in_floats(library: Path | None, row: int, loudness: float) -> None:
    """However far above what came before it: nothing overflows, nothing is lost."""
    hw, dim = 640, 64
    packed, ones = floats(hw, 3 * dim), np.ones((hw, dim // 2), np.float32)
    packed[:, dim : 2 * dim] *= 0.1
    packed[:, 0], packed[row, dim] = 1, loudness
    one = session("FrameAttention32", ATTENTION, {}, library, num_heads=1, scale=dim**-0.5)
    feeds = {"packed": packed, "shape": np.array([1, hw, 3 * dim]), "cosines": ones, "sines": 0 * ones}
    close(one.run(None, feeds)[0], attention(packed, 1, 1, ones, 0 * ones, None), 1e-4)


@every_kernel
@pytest.mark.parametrize(
    "trouble",
    ["a loud channel", "keys far from zero", "one key that all look at", "a late key that leaves nothing to others"],
)
def test_attention_survives_what_integers_find_hard(library: Path, trouble: str) -> None:
    hw, dim = 640, 64
    packed, ones = floats(hw, 3 * dim), np.ones((hw, dim // 2), np.float32)  # of cosines: nothing is turned
    if trouble == "a loud channel":
        packed[:, [3, dim + 3]] *= 8  # of queries and keys
    elif trouble == "keys far from zero":
        packed[:, dim : 2 * dim] += 10 * floats(dim)
    else:
        packed[:, dim : 2 * dim] *= 0.1
        row, loudness = (5, 40) if trouble.startswith("one") else (500, 600)
        packed[:, 0], packed[row, dim] = 1, loudness
    one = session("FrameAttention", ATTENTION, {}, library, num_heads=1, scale=dim**-0.5)
    feeds = {"packed": packed, "shape": np.array([1, hw, 3 * dim]), "cosines": ones, "sines": 0 * ones}
    alike(one.run(None, feeds)[0], attention(packed, 1, 1, ones, 0 * ones, None), 0.05)


@every_kernel
@pytest.mark.parametrize("bits", ["4", "8", "16", "32"])
def test_threads_do_not_change_a_bit(library: Path | None, bits: str) -> None:
    layer, x, sizes = layer_of(bits, 256, 1030), floats(611, 256), {"K": 256, "N": 1030} if bits == "4" else {}
    one, two = (session(f"Linear{bits}", ROWS, layer, library, threads, **sizes).run(None, {"rows": x})[0] for threads in (1, 2))  # fmt: skip
    assert np.array_equal(one, two)


@every_kernel
def test_sizes_that_do_not_fit_are_errors_and_no_crash(library: Path | None) -> None:
    one = session("Linear8", ROWS, stored(64, 64), library)
    with pytest.raises(Exception, match="another width"):
        one.run(None, {"rows": floats(3, 60)})
    adding = session("LinearAdd8", {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}, stored(64, 64), library)
    with pytest.raises(Exception, match="residual"):
        adding.run(None, {"rows": floats(3, 64), "residual": floats(2, 64)})
    with pytest.raises(Exception, match="a step, a sum and a bias"):
        session("Linear8", ROWS, stored(64, 64) | {"steps": floats(3)}, library)
    for wrong in ({"steps": floats(3)}, {"bias": floats(3)}, {"zeros": np.zeros((64, 3), np.uint8)}):
        with pytest.raises(Exception, match="a step and a zero a block"):
            session("Linear4", ROWS, blocks(64, 64) | wrong, library, K=64, N=64)
    with pytest.raises(Exception, match="a step and a zero a block"):
        session("Linear4", ROWS, blocks(64, 64), library, K=96, N=64)
    for step in (0, -1, np.nan, np.inf):
        four = blocks(64, 64)
        four["steps"][5, 1] = step
        with pytest.raises(Exception, match="not a positive number"):
            session("Linear4", ROWS, four, library, K=64, N=64)
    with pytest.raises(Exception, match="in blocks of 16 bytes"):
        session("Linear4", ROWS, blocks(64, 64) | {"weight": np.zeros((64, 2, 8), np.uint8)}, library, K=64, N=64)
    with pytest.raises(Exception, match="without a bias a row"):
        session("Linear16", ROWS, kept(64, 64, "16") | {"bias": floats(3)}, library)
    with pytest.raises(Exception, match="of another width than the weights'"):
        session(
            "NormLinear16", ROWS, kept(64, 64, "16") | {"norm_weight": floats(60), "norm_bias": floats(60)}, library
        )
    parts = kept(64, 172, "16", "_1") | kept(170, 64, "16", "_2") | {"norm_weight": floats(64), "norm_bias": floats(64)}
    with pytest.raises(Exception, match="do not fit each other"):
        session("NormMlpAdd16", ROWS, parts, library)
    attending = session("FrameAttention", ATTENTION, {}, library, num_heads=2, scale=0.125)
    for patches, width, half, why in ((5, 384, 32, "sizes do not fit"), (4, 1560, 130, "more than 256 channels")):
        feeds = {
            "shape": np.array([1, patches, width]),
            "cosines": floats(patches, half),
            "sines": floats(patches, half),
        }
        with pytest.raises(Exception, match=why):
            attending.run(None, feeds | {"packed": floats(4, width)})


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


@every_way
@pytest.mark.parametrize("bits", ["4", "8", "16", "32"])
def test_the_kernel_runs_where_it_is_registered(library: Path | None, bits: str, tmp_path: Path) -> None:
    sizes = {"K": 64, "N": 64} if bits == "4" else {}
    one = session(f"Linear{bits}", ROWS, layer_of(bits, 64, 64), library, profile=tmp_path / "profile", **sizes)
    one.run(None, {"rows": floats(3, 64)})
    events = json.loads(Path(one.end_profiling()).read_text())
    kinds = {event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]}
    has_kernel = library is not None and (bits != "32" or "avx512" in library.name)
    assert (f"Linear{bits}" in kinds) is has_kernel
    assert (("MatMulNBits" if bits == "4" else "Gemm") in kinds) is not has_kernel


def test_a_missing_or_broken_library_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = kernels.library.__wrapped__
    monkeypatch.setattr(kernels, "LIBRARIES", tmp_path)
    assert find() is None
    for instructions in kernels.INSTRUCTIONS[platform.machine()]:
        (tmp_path / f"libedge_vlm.{platform.machine()}.{instructions}.so").write_bytes(b"no library")
    assert find() is None
