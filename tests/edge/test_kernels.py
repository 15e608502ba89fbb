"""The libraries as onnxruntime and the device meet them: chosen, registered, threads, memory, errors."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.tower import kernels
from kernels.build import SOURCES, TARGETS
from tests.edge.kernel_sessions import every_kernel, every_way, session
from tests.edge.operators import ATTENTION, FLOAT, ROWS, blocks, floats, graph, kept, stored


def layer_of(bits: str, num_inputs: int, num_outputs: int) -> dict[str, NDArray]:
    """A random layer of any kind."""
    make = {"4": blocks, "8": stored}.get(bits)
    return make(num_inputs, num_outputs) if make else kept(num_inputs, num_outputs, bits)


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


def test_no_source_hides_from_a_target() -> None:
    """A target compiles the folders that it lists, and none of their files asks the compiler what it is compiled for."""
    sources = [path for path in SOURCES.rglob("*") if path.suffix in (".cc", ".h")]
    folders = {path.parent.name for path in sources} - {SOURCES.name}
    assert folders == {name for target in TARGETS.values() for name in target.folders}
    for target in TARGETS.values():
        assert sum((SOURCES / name / "target.h").is_file() for name in target.folders) == 1
    for path in sources:
        assert "\n#if" not in path.read_text(), path
