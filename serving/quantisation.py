"""Whether the transformers engine can read quantised weights, judged by the config before a server starts over them.

vLLM reads all of these by itself; transformers asks for a package for each, one after another, half a minute into
loading.
"""

import json
from importlib.util import find_spec
from pathlib import Path

from contract.errors import BundleError
from contract.quantisation import PACKAGES, quantisation

VLLM_ONLY = ("modelopt",)


def check_quantisation(folder: Path) -> None:
    """Check that the packages which transformers needs for a checkpoint's weights are installed.

    Raises:
        BundleError: a package is missing (the message names each such package, and the other engine), transformers does
            not read the method, or config.json cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / 'config.json'} cannot be read: {error}") from error
    method = quantisation(config)
    if method in VLLM_ONLY:
        raise BundleError(
            f"{folder} is quantised with {method}, which transformers does not read: serve it with --engine vllm"
        )
    if missing := [name for name in PACKAGES.get(method or "", ()) if find_spec(name) is None]:
        raise BundleError(
            f"{folder} is quantised with {method}: pip install {' '.join(missing).replace('_', '-')}, or serve it with "
            "--engine vllm"
        )
