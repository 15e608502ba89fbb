"""llama.cpp's own encoder of pictures and pairs of frames, on files that its own tools wrote.

It gets the same picture as every engine: this module puts patches back into rows of pixels, at sizes that llama.cpp
need not change.
"""

import ctypes
from pathlib import Path

import numpy as np

from benchmarks.edge import weights
from benchmarks.edge.engines import Grid, Patches, Rows, pixel_values
from benchmarks.edge.llama.build import LIBRARY
from export.graph.tower import Tower

Pointer = ctypes.c_void_p


def model_path(cache: Path, depth: int, variant: str) -> Path:
    return cache / f"mmproj-{depth}-{variant}.gguf"


def library() -> ctypes.CDLL:
    """
    Raises:
        SystemExit: nobody has built the library.
    """
    if not LIBRARY.is_file():
        raise SystemExit(f"{LIBRARY} is missing: run python -m benchmarks.edge.llama.build")
    found = ctypes.CDLL(str(LIBRARY))
    found.tower_load.restype, found.tower_load.argtypes = Pointer, [ctypes.c_char_p]
    found.tower_encode.restype = ctypes.c_bool
    found.tower_encode.argtypes = [Pointer, ctypes.c_int, Pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int, Pointer]
    found.tower_quantise.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
    return found


def frames_of(pixels: Rows, grid: Grid, tower: Tower) -> Rows:
    """Undo `edge_runtime.items.patches`: patches (t * h * w, width) to float32 (frames, height, width, 3)."""
    (groups, height, width), side, step, depth = grid, tower.patch_size, tower.merge_size, tower.temporal_patch_size
    blocks = pixels.reshape(groups, height // step, width // step, step, step, 3, depth, side, side)
    # (t, H/m, W/m, m, m, c, tp, p, p) -> (t, tp, H/m, m, p, W/m, m, p, c)
    rows = blocks.transpose(0, 6, 1, 3, 7, 2, 4, 8, 5)
    return np.ascontiguousarray(rows).reshape(groups * depth, height * side, width * side, 3)


class Llama:
    def __init__(self, path: Path, tower: Tower, threads: int) -> None:
        self.file_bytes, self._shape, self._threads = path.stat().st_size, tower, threads
        self._library = library()
        self._tower = self._library.tower_load(str(path).encode())
        if not self._tower:
            raise SystemExit(f"llama.cpp does not load {path}: delete it, and the next run writes it again")

    def lay_out(self, patches: Patches, grid: Grid) -> Rows:
        """Frames as `frames_of` gives them; a still picture is one frame, which llama.cpp looks at twice."""
        frames = frames_of(pixel_values(patches), grid, self._shape)
        return frames if grid[0] > 1 else frames[:1]

    def __call__(self, item: Rows) -> tuple[Rows, Rows]:
        frames, height, width, _ = item.shape
        side, depth = self._shape.patch_size * self._shape.merge_size, self._shape.temporal_patch_size
        tokens, levels = -(-frames // depth) * (height // side) * (width // side), 1 + len(self._shape.taps)
        rows = np.empty((tokens, levels, self._shape.out_hidden_size), np.float32)
        encode = self._library.tower_encode
        if not encode(self._tower, self._threads, item.ctypes.data, frames, height, width, rows.ctypes.data):
            raise RuntimeError(f"llama.cpp does not encode {frames} frames of {height} x {width}")
        return rows[:, 0], rows[:, 1:].transpose(1, 0, 2)


def load(cache: Path, depth: int, threads: int, variant: str) -> Llama:
    return Llama(model_path(cache, depth, variant), weights.tower(cache, depth), threads)
