"""An environment of its own for each vendor's toolchain: their packages pin versions that contradict each other.

It lies in `$EDGE_VLM_CACHE`, else `$XDG_CACHE_HOME/edge-vlm`, else `~/.cache/edge-vlm`, under targets/. The first
export for a target makes it, which downloads up to half a gigabyte.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from contract.errors import MissingExtra
from contract.files import published

REQUIREMENTS = {
    "qnn": ("onnxruntime-qnn==2.7.0", "onnxruntime==1.32.0", "onnx==1.23.2", "sympy>=1.13", "numpy>=2"),
    "openvino": ("openvino==2026.4.1", "nncf==3.4.0", "numpy>=2"),
    "coreml": ("coremltools==9.0", "onnx2coreml==1.1.0", "onnx==1.23.2", "numpy>=2"),
    "mnn": ("--no-deps", "MNN==3.6.1", "numpy>=2"),  # its own requirements have torch with CUDA
    # litert-torch asks for torch, transformers and jax with all of theirs; it runs with the torch of this project.
    "litert": (
        "--no-deps",
        "litert-torch==0.10.0",
        "litert-converter==0.5.0",
        "ai-edge-litert==2.3.0",
        "ai-edge-quantizer==0.10.0",
        "absl-py==2.5.1",
        "backports.strenum==1.2.8",
        "flatbuffers==25.12.19",
        "immutabledict==4.3.1",
        "jax==0.10.2",
        "jaxlib==0.10.2",
        "jaxtyping==0.3.11",
        "lark==1.3.1",
        "ml_dtypes==0.6.0",
        "multipledispatch==1.0.0",
        "numpy==2.4.6",
        "onnx==1.23.2",
        "opt_einsum==3.4.0",
        "protobuf==7.36.2",
        "safetensors==0.8.0",
        "scipy==1.17.1",
        "torchao==0.18.0",
        "tqdm==4.70.1",
        "typing_extensions==4.16.0",
        "wadler_lindig==0.1.8",
        "xdsl==0.28.0",
    ),
    # rknn-toolkit2 asks for torch 2.4 with CUDA, 5 GB; it runs with the torch of this project, so all others are named here.
    "rknn": (
        "--no-deps",
        "rknn-toolkit2==2.5.0",
        "coloredlogs==15.0.1",
        "fast-histogram==0.14",
        "flatbuffers==25.2.10",
        "humanfriendly==10.0",
        "numpy==1.26.4",
        "onnx==1.18.0",
        "onnxruntime==1.22.1",
        "opencv-python-headless==4.11.0.86",
        "protobuf==4.25.4",
        "psutil==7.0.0",
        "ruamel.yaml==0.18.10",
        "scipy==1.15.3",
        "setuptools==80.9.0",
        "tqdm==4.67.1",
    ),
}


def python_for(target: str, note: Callable[[str], None]) -> Path:
    """The Python of a target's environment, which this call makes where it is absent.

    Args:
        note: takes a line for the user.

    Raises:
        MissingExtra: pip cannot install the packages.
    """
    words = REQUIREMENTS[target]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(" ".join((*words, version)).encode()).hexdigest()[:12]
    folder = _cache() / "targets" / f"{target}-{digest}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():  # another export may have made it meanwhile
                note(f"environment {folder}: {' '.join(words)}")
                with published(folder) as work:
                    _install(work, words, target)
    return folder / "bin" / "python"


def _cache() -> Path:
    if own := os.environ.get("EDGE_VLM_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "edge-vlm"


def _install(folder: Path, words: tuple[str, ...], target: str) -> None:
    own = str(folder / "bin" / "python")
    commands = (
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        [sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--disable-pip-version-check", *words],
    )
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            last = " ".join(done.stderr.split()[-60:])
            raise MissingExtra(
                f"--target {target}: its toolchain could not be installed ({last})",
                target,
                f"pip install {' '.join(words)}",
            )
