"""Whether an engine can read quantised weights, judged by the config before a server starts over them.

vLLM reads most methods by itself; transformers asks for a package for each, one after another, half a minute into
loading.
"""

from importlib.util import find_spec
from pathlib import Path

from contract.errors import BundleError
from contract.quantisation import NOT_VLLM, PACKAGES, quantisation, read_config

VLLM_ONLY = ("modelopt",)
VLLM, TRANSFORMERS = "serve it with --engine vllm", "serve it with --engine transformers"


def check_quantisation(folder: Path, engine: str = "transformers") -> None:
    """Check that an engine reads a checkpoint's weights, and that the packages which it needs are installed.

    Args:
        engine: transformers or vllm.

    Raises:
        BundleError: a package is missing (the message names each such package, and the other engine where that one
            reads the method), the engine does not read the method, or config.json cannot be read.
    """
    method = quantisation(read_config(folder)) or ""
    packages = PACKAGES.get(method, ())
    if engine == "vllm":
        if method in NOT_VLLM:
            needed = " ".join(packages).replace("_", "-")
            raise BundleError(
                f"{folder} is quantised with {method}, which vLLM does not read: pip install {needed} and {TRANSFORMERS}"
            )
        return
    if method in VLLM_ONLY:
        raise BundleError(f"{folder} is quantised with {method}, which transformers does not read: {VLLM}")
    if missing := [name for name in packages if find_spec(name) is None]:
        other = "" if method in NOT_VLLM else f", or {VLLM}"
        raise BundleError(
            f"{folder} is quantised with {method}: pip install {' '.join(missing).replace('_', '-')}{other}"
        )
