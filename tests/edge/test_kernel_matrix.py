"""Products on matrix tiles (AMX) against those on vectors: the same operators in two processes, one of which Linux refuses
the tiles. Where the processor has none, or none are allowed, both take vectors, and say so.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.tower import kernels
from export.graph.operators import BF16
from tests.edge.operators import (
    ATTENTION,
    FLOAT,
    RNG,
    ROWS,
    UNUSUAL,
    Inputs,
    alike,
    attributes_of,
    blocks,
    close,
    floats,
    graph,
    kept,
    product,
    stored,
)

# A stack for signals that is too small for the registers of tiles makes Linux refuse them to the whole process.
SCRIPT = """
import ctypes, sys
from pathlib import Path
from typing import Any
import numpy as np
libc = ctypes.CDLL(None)
class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
if sys.argv[2] == "vectors":
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, len(memory))), None) == 0
import onnxruntime
from edge_runtime.tower import kernels
from edge_runtime.tower.processor import instruction_sets
from edge_runtime.tower.session_options import session_options
is_allowed = {"amx_int8", "amx_bf16"} <= set(instruction_sets()) and libc.syscall(158, 0x1023, 18) == 0
assert kernels.has_matrix_tiles() == (is_allowed and kernels.instructions() == "avx512")
assert not (kernels.has_matrix_tiles() and sys.argv[2] == "vectors")
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    feeds = dict(np.load(path.with_suffix(".npz")))
    for threads, low_memory in ((1, False), (2, False), (1, True)):
        options = session_options(threads, use_kernels=True, low_memory=low_memory)
        got = onnxruntime.InferenceSession(path, options).run(None, feeds)[0]
        np.save(path.parent / f"{path.stem}.{threads}.{low_memory}.{sys.argv[2]}.npy", got)
print(kernels.has_matrix_tiles())
"""
SIZES = [(1, 64, 64), (3, 100, 70), (16, 1024, 64), (17, 512, 96), (31, 130, 200), (32, 64, 128), (33, 1024, 320), (257, 1028, 65), (468, 256, 256), (60, 2048, 64)]  # fmt: skip
HEADS = [(1, 1, 2, 64), (1, 63, 2, 64), (1, 64, 3, 64), (2, 130, 2, 32), (1, 257, 1, 72), (1, 468, 2, 64), (1, 200, 1, 128), (1, 100, 2, 80), (1, 140, 1, 16)]  # fmt: skip


def in_bf16(x: NDArray) -> NDArray[np.float32]:
    """The nearest numbers of eight bits; of two as near the even one."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


@pytest.mark.skipif(sys.platform != "linux" or not kernels.library(), reason="no library of operators for this machine")
def test_matrix_tiles_change_no_bit_of_integers(tmp_path: Path) -> None:
    exact: set[str] = set()
    half_layers: dict[str, tuple[NDArray, dict[str, NDArray]]] = {}

    def add(kind: str, inputs: Inputs, constants: dict[str, NDArray], feeds: dict[str, NDArray], **attributes: Any) -> str:  # fmt: skip
        name = f"{kind}_{len(list(tmp_path.glob('*.onnx')))}"
        (tmp_path / f"{name}.onnx").write_bytes(graph(kind, inputs, constants, **attributes))
        np.savez(tmp_path / f"{name}.npz", **feeds)
        return name

    for rows, num_inputs, num_outputs in SIZES:
        x, residual, sizes = 3 * floats(rows, num_inputs) + 1, floats(rows, num_outputs), {"K": num_inputs, "N": num_outputs}  # fmt: skip
        both = {"rows": (FLOAT, 2), "residual": (FLOAT, 2)}
        norms = {"norm_weight": floats(num_inputs), "norm_bias": floats(num_inputs)}
        exact.add(add("LinearAdd8", both, stored(num_inputs, num_outputs), {"rows": x, "residual": residual}))
        exact.add(add("NormLinear8", ROWS, stored(num_inputs, num_outputs) | norms, {"rows": x}))
        exact.add(add("Linear4", ROWS, blocks(num_inputs, num_outputs), {"rows": x}, **sizes))
        mlp = stored(num_inputs, num_outputs, "_1") | stored(num_outputs, num_inputs, "_2")
        factors = {"factors": np.exp2(RNG.integers(-3, 4, num_outputs)).astype(np.float32)}
        exact.add(add("NormMlpAdd8", ROWS, mlp | norms | factors, {"rows": x}))
        for unusual in UNUSUAL:
            exact.add(add("NormMlpAdd8", ROWS, mlp | norms | factors, {"rows": x}, **attributes_of(*unusual)[1]))
        layer = kept(num_inputs, num_outputs, "16")
        half_layers[add("Linear16", ROWS, layer, {"rows": x}, accuracy_level=BF16)] = x, layer
    for frames, hw, heads, dim in HEADS:
        angles = RNG.uniform(0, 6, (hw, dim // 2)).astype(np.float32)
        packed = 2 * floats(frames * hw, 3 * heads * dim)
        feeds = [packed, np.array([frames, hw, 3 * heads * dim]), np.cos(angles), np.sin(angles)]
        feeds_by_name = dict(zip(ATTENTION, feeds, strict=True))
        exact.add(add("FrameAttention", ATTENTION, {}, feeds_by_name, num_heads=heads, scale=dim**-0.5))

    printed = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path, way], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for way in ("tiles", "vectors")
    ]
    for path in sorted(tmp_path.glob("*.tiles.npy")):
        name = path.name.partition(".")[0]
        got, on_vectors = np.load(path), np.load(path.with_name(path.name.replace(".tiles.", ".vectors.")))
        if name in exact:
            np.testing.assert_array_equal(got, on_vectors, err_msg=name)
            np.testing.assert_array_equal(got, np.load(tmp_path / f"{name}.1.False.tiles.npy"), err_msg=name)
            continue
        x, layer = half_layers[name]
        alike(on_vectors, product(x, layer), 0.01)
        if printed[0].strip() == "True":
            close(got, product(in_bf16(x), layer | {"weight": in_bf16(layer["weight"])}), 2e-5)
