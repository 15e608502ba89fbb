"""OpenVINO on files that `openvino_files` wrote once: LATENCY hint, `threads` cores, nothing else in the process."""

from pathlib import Path

import numpy as np
import openvino

from benchmarks.edge.engines import Grid, Patches, Rows, pixel_values

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # the layers that are not int8


def model_path(cache: Path, depth: int, variant: str) -> Path:
    return cache / f"openvino-{depth}-{'int8' if variant == 'int8' else 'fp32'}.xml"


def positions_path(cache: Path, depth: int) -> Path:
    """The file of arrays `{height}x{width}.positions`, `.cosines` and `.sines` for every size of frame."""
    return cache / f"openvino-{depth}-positions.npz"


class OpenVino:
    def __init__(self, path: Path, positions: Path, threads: int, hint: str) -> None:
        self.file_bytes = path.with_suffix(".bin").stat().st_size + path.stat().st_size
        self._positions = np.load(positions)
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
        self._request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()

    def lay_out(self, patches: Patches, grid: Grid) -> list[Rows]:
        """The graph's four inputs, all float32; pixels are (frames, patches, width)."""
        of_frame = [self._positions[f"{grid[1]}x{grid[2]}.{part}"] for part in ("positions", "cosines", "sines")]
        return [pixel_values(patches).reshape(grid[0], grid[1] * grid[2], -1), *of_frame]

    def __call__(self, item: list[Rows]) -> tuple[Rows, Rows]:
        found = self._request.infer(item, share_inputs=True)
        main, *levels = (np.array(found[number]) for number in range(len(found)))
        return main, np.stack(levels)


def load(cache: Path, depth: int, threads: int, variant: str) -> OpenVino:
    return OpenVino(model_path(cache, depth, variant), positions_path(cache, depth), threads, HINTS[variant])
