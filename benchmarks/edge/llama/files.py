"""Writes mmproj files of llama.cpp with its own converter and its own library."""

import subprocess
import sys
from pathlib import Path

from benchmarks.edge import weights
from benchmarks.edge.llama.build import SOURCE
from benchmarks.edge.llama.engine import library, model_path


def prepare(cache: Path, depth: int, variant: str) -> None:
    """Write the file where it is missing: llama.cpp's converter does, or, for Q4_K, its library from the f16 file."""
    path = model_path(cache, depth, variant)
    if path.is_file():
        return
    partial = path.with_suffix(".partial")
    if variant == "Q4_K":
        prepare(cache, depth, "f16")
        f16 = str(model_path(cache, depth, "f16")).encode()
        if failed := library().tower_quantise(f16, str(partial).encode(), 2):
            raise SystemExit(f"llama.cpp does not quantise {path.name}: it returns {failed}, 0 is expected")
    else:
        convert: list[str | Path] = [sys.executable, SOURCE / "convert_hf_to_gguf.py", "--mmproj", "--outtype", variant]
        subprocess.run([*convert, "--outfile", partial, weights.checkpoint(cache, depth)], check=True)
    partial.rename(path)
