"""How a config says that its linear layers are quantised, and which packages transformers needs to read them."""

from typing import Any

# The packages that transformers 5.23 asks for, by method (quantizers/quantizer_*.py, validate_environment).
PACKAGES = {
    "fp8": ("accelerate",),
    "bitsandbytes": ("accelerate", "bitsandbytes"),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("accelerate", "gptqmodel"),
}


def quantisation(config: dict[str, Any]) -> str | None:
    """The method that quantised the linear layers, as a transformers config names it; None where it names none."""
    for place in (config, config.get("text_config") or {}):
        found = place.get("quantization_config")
        if isinstance(found, dict):
            return str(found.get("quant_method", "an unnamed method"))
    return None
