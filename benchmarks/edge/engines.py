"""The engines that the benchmark times: each runs one item through the tower and gives its embeddings and levels.

An engine is a module whose `load(cache, depth, threads, variant)` opens files in a process of the engine's own, which
holds nothing else, so that its time and memory are the engine's. Another module's
`prepare(cache, depth, variant)` makes files other than the checkpoint once before, in a process that then ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.items.patches import normalised
from edge_runtime.tower.processor import instruction_sets

Grid = tuple[int, int, int]
Rows = NDArray[np.float32]
Patches = NDArray[np.uint8]
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of a channel, on the 0..1 scale


def pixel_values(patches: Patches) -> Rows:
    """The normalised pixels for engines that do not normalise them."""
    return normalised(patches, HALF, HALF)


class Engine(Protocol):
    """One loaded tower. file_bytes is the size of its files on disk."""

    file_bytes: int

    def lay_out(self, patches: Patches, grid: Grid) -> Any:
        """Patches, uint8 (patches, width), as this engine takes them, and what it needs of the grid; not timed."""
        ...

    def __call__(self, item: Any) -> tuple[Rows, Rows]:
        """Encode what `lay_out` gave; returns main float32 (N, H) and levels float32 (L, N, H)."""
        ...


@dataclass(frozen=True)
class Kind:
    """Where the benchmark finds an engine.

    Attributes:
        module, files: the modules of this package that load it and that prepare it; "" where the checkpoint is enough.
        variant: the variant that both get.
        operand: the type whose peak its speed is compared with: fp32, bf16 or int8.
        settings: how the benchmark runs it, for the reader of the results.
    """

    module: str
    files: str
    variant: str
    operand: str
    settings: str

    def prepare(self, cache: Path, depth: int) -> None:
        import_module(f"benchmarks.edge.{self.files}").prepare(cache, depth, self.variant)

    def loader(self) -> Callable[[Path, int, int], Engine]:
        """The function that makes the engine from cache, depth and threads. This imports the engine's libraries."""
        load: Callable[[Path, int, int, str], Engine] = import_module(f"benchmarks.edge.{self.module}").load
        return lambda cache, depth, threads: load(cache, depth, threads, self.variant)


EAGER = "scaled_dot_product_attention"
COMPILED = f"{EAGER}, every block by torch.compile(dynamic=False)"
INTEL = "LATENCY hint, file with fp16 weights; positions and angles made outside in float32"
LLAMA = "its own converter, GCC with -march=native, OpenMP, llamafile, flash attention"
KERNELS = "kernels of this processor"
ENGINES: dict[str, Kind] = {
    "transformers fp32": Kind("torch_engine", "", "float32", "fp32", EAGER),
    "transformers bf16": Kind("torch_engine", "", "bfloat16", "bf16", EAGER),
    "torch.compile fp32": Kind("torch_engine", "", "float32 compiled", "fp32", COMPILED),
    "torch.compile bf16": Kind("torch_engine", "", "bfloat16 compiled", "bf16", COMPILED),
    "OpenVINO fp32": Kind("openvino_engine", "openvino_files", "fp32", "fp32", f"{INTEL}; precision hint f32"),
    "OpenVINO bf16": Kind("openvino_engine", "openvino_files", "bf16", "bf16", f"{INTEL}; precision hint bf16"),
    "OpenVINO int8": Kind(
        "openvino_engine", "openvino_files", "int8", "int8", f"{INTEL}; NNCF, calibrated, for transformers"
    ),
    "llama.cpp f16": Kind("llama.engine", "llama.files", "f16", "fp32", LLAMA),
    "llama.cpp bf16": Kind("llama.engine", "llama.files", "bf16", "bf16", LLAMA),
    "llama.cpp q8_0": Kind("llama.engine", "llama.files", "q8_0", "int8", LLAMA),
    "llama.cpp Q4_K": Kind(
        "llama.engine", "llama.files", "Q4_K", "int8", f"{LLAMA}; Q4_K_M of the f16 file by libllama"
    ),
    "ours fp32": Kind("ours_engine", "weights", "fp32", "fp32", KERNELS),
    "ours fp16": Kind("ours_engine", "weights", "fp16", "fp32", KERNELS),
    "ours bf16": Kind("ours_engine", "weights", "bf16", "bf16", KERNELS),
    "ours int8": Kind("ours_engine", "weights", "int8", "int8", KERNELS),
    "ours int8 portable": Kind("ours_engine", "weights", "int8 portable", "int8", "onnxruntime's operators alone"),
    "ours int4": Kind("ours_engine", "weights", "int4", "int8", KERNELS),
    "ours int4 portable": Kind("ours_engine", "weights", "int4 portable", "int8", "onnxruntime's operators alone"),
}
REFERENCE = "transformers fp32"


def native_engines() -> list[str]:
    """ENGINES without those whose numbers this processor can only imitate: a bf16 call may then take a hundred times as
    long as a float32 one."""
    has_bf16 = any("bf16" in name for name in instruction_sets())
    return [name for name, kind in ENGINES.items() if has_bf16 or kind.operand != "bf16"]
