"""How a config says that its linear layers are quantised, and which packages transformers needs to read them."""

import json
from pathlib import Path
from typing import Any

from contract.errors import BundleError
from contract.files import read_text

NOT_VLLM = ("bitsandbytes",)  # vLLM 0.32 reads the others
# The packages that transformers 5.23 asks for, by method (quantizers/quantizer_*.py, validate_environment).
PACKAGES = {
    "fp8": ("accelerate",),
    "bitsandbytes": ("accelerate", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("accelerate", "gptqmodel"),
}


def quantisation_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """What a transformers config says of its quantised linear layers; None where it names no method."""
    for place in (config, config.get("text_config") or {}):
        found = place.get("quantization_config")
        if isinstance(found, dict):
            return found
    return None


def quantisation(config: dict[str, Any]) -> str | None:
    """The method that quantised the linear layers, as a transformers config names it; None where it names none."""
    found = quantisation_config(config)
    return None if found is None else str(found.get("quant_method", "an unnamed method"))


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json.

    Raises:
        BundleError: it cannot be read, or holds no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path} holds {type(config).__name__}, an object is expected")
    return config
